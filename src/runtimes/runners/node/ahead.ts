/** Imported ahead by instances for TypeScript: what takes the types out is loaded at its first use, and that takes 20 ms. */
export const isAhead: boolean = true;
