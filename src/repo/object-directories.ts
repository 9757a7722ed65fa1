/** Environment that lets git find objects in `directories` beside the repository's own (git(1), GIT_ALTERNATE_OBJECT_DIRECTORIES). */
export function readFromDirectories(directories: readonly string[]): Record<string, string> {
  // In double quotes a path may hold the separator; backslash and quote are escaped as in C.
  const quoted = directories.map((directory) => `"${directory.replaceAll(/["\\]/g, String.raw`\$&`)}"`);
  return { GIT_ALTERNATE_OBJECT_DIRECTORIES: quoted.join(':') };
}

/** Environment that makes git write new objects to `directory` and find the others in `repositoryObjects`. */
export function writeToDirectory(directory: string, repositoryObjects: string): Record<string, string> {
  return { GIT_OBJECT_DIRECTORY: directory, ...readFromDirectories([repositoryObjects]) };
}
