import type { Problem } from '../errors.ts';
import { LOGGING_LEVELS, type LoggingLevel, type SystemConfig } from './spec.ts';
import { didYouMean } from './suggest.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

/** What FAAS_* variables set; absent: the variable is not set, or empty. */
export interface EnvironmentSettings {
  readonly defaultMode?: SystemConfig['defaultMode'];
  readonly port?: number;
  readonly loggingLevel?: LoggingLevel;
  readonly containersDisabled?: boolean;
}

const MODES = ['process', 'container'] as const;
const SWITCH: Readonly<Record<string, boolean>> = {
  1: true,
  true: true,
  yes: true,
  on: true,
  0: false,
  false: false,
  no: false,
  off: false,
};

/** Reads FAAS_DEFAULT_MODE, FAAS_API_PORT, FAAS_LOG_LEVEL and FAAS_DISABLE_CONTAINER; a value that means nothing is a problem. */
export function readEnvironment(environment: Environment): { settings: EnvironmentSettings; problems: Problem[] } {
  const problems: Problem[] = [];
  const read = <Value>(
    name: string,
    parse: (text: string) => Value | undefined,
    wanted: string,
    hint = (_text: string) => '',
  ): Value | undefined => {
    const text = environment[name];
    if (text === undefined || text === '') return undefined;
    const value = parse(text);
    if (value === undefined)
      problems.push(environmentProblem(name, `${JSON.stringify(text.slice(0, 60))} is not ${wanted}${hint(text)}`));
    return value;
  };
  const oneOf =
    <Value extends string>(values: readonly Value[]) =>
    (text: string): Value | undefined =>
      values.find((value) => value === text);
  const defaultMode = read('FAAS_DEFAULT_MODE', oneOf(MODES), MODES.join(' or '), (text) => didYouMean(text, MODES));
  const port = read('FAAS_API_PORT', parsePort, 'a port from 0 to 65535');
  const loggingLevel = read('FAAS_LOG_LEVEL', oneOf(LOGGING_LEVELS), `one of ${LOGGING_LEVELS.join(', ')}`, (text) =>
    didYouMean(text, LOGGING_LEVELS),
  );
  const toSwitch = (text: string) => (Object.hasOwn(SWITCH, text.toLowerCase()) ? SWITCH[text.toLowerCase()] : undefined);
  const containersDisabled = read('FAAS_DISABLE_CONTAINER', toSwitch, '1, true, yes, on or 0, false, no, off');
  return {
    settings: {
      ...(defaultMode !== undefined && { defaultMode }),
      ...(port !== undefined && { port }),
      ...(loggingLevel !== undefined && { loggingLevel }),
      ...(containersDisabled !== undefined && { containersDisabled }),
    },
    problems,
  };
}

/** A problem of a variable, in the form of those in files. */
export function environmentProblem(name: string, message: string): Problem {
  return { file: 'environment', line: 1, column: 1, message: `${name}: ${message}` };
}

/** The whole text as a port, or undefined. */
export function parsePort(text: string): number | undefined {
  return /^\d{1,5}$/.test(text) && Number(text) <= 65_535 ? Number(text) : undefined;
}
