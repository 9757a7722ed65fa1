import type { ImportTemplateView, Instance, StartRequest } from '../../src/pool/instance.ts';
import { call, text, type RuntimeFixture } from './process-runtime.ts';
import { waitUntil } from './wait-until.ts';

const START_MS = 30_000;

/** Slow enough that the function gets a template. */
export const SLOW = 'import time\ntime.sleep(0.1)\n';

/** One function whose instances may come from a template. */
export class TemplatedFunction {
  readonly request: StartRequest;
  readonly #fixture: RuntimeFixture;

  constructor(fixture: RuntimeFixture, code: string, overrides: Partial<StartRequest> = {}) {
    this.#fixture = fixture;
    this.request = fixture.request(code, { importTemplate: 'auto', ...overrides });
  }

  /** Starts and ends an instance the ordinary way, and waits for what comes of it: `ready` or `refused`. */
  static async make(fixture: RuntimeFixture, code: string, overrides: Partial<StartRequest> = {}): Promise<TemplatedFunction> {
    const made = new TemplatedFunction(fixture, code, overrides);
    const first = await made.start();
    await made.settle();
    await first.kill();
    return made;
  }

  /** Waits until nothing is being made. */
  async settle(): Promise<ImportTemplateView> {
    await waitUntil(() => this.view.state === 'ready' || this.view.state === 'refused' || this.view.reason !== undefined);
    return this.view;
  }

  get view(): ImportTemplateView {
    const view = this.#fixture.runtime.viewImportTemplate?.(this.request);
    if (view === undefined) throw new Error('this runtime has no templates');
    return view;
  }

  async start(): Promise<Instance> {
    return await this.#fixture.runtime.start(this.request, AbortSignal.timeout(START_MS));
  }

  /** Starts one that must come from the template. */
  async fork(): Promise<Instance> {
    const instance = await this.start();
    if (instance.phases.isFromTemplate !== true) throw new Error(`started the ordinary way: ${JSON.stringify(this.view)}`);
    return instance;
  }
}

/** The JSON that a call answers; `body` is for the handler. */
export async function ask(instance: Instance, body = ''): Promise<Record<string, unknown>> {
  return JSON.parse(await text(await call(instance, { body: Buffer.from(body) }))) as Record<string, unknown>;
}
