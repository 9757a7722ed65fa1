import { makeWorkspace, startDaemonProcess } from '../support/daemon-process.ts';
import { testNeeding } from '../support/requirements.ts';
import { waitUntil } from '../support/wait-until.ts';

const GREEDY = `import os, subprocess, time
def handle(request):
    if request.path == "/memory":
        return str(len(bytearray(300 << 20)))
    if request.path == "/processes":
        kept = [subprocess.Popen(["sleep", "1000"]) for _ in range(100)]
    if request.path == "/files":
        kept = [open("/dev/null") for _ in range(2000)]
    if request.path == "/spin":
        end = time.perf_counter() + 1
        while time.perf_counter() < end: pass
    if request.path == "/late":
        while True: pass
    return "well"
`;

interface Usage {
  readonly memory_bytes: number;
  readonly memory_peak_bytes: number;
  readonly cpu_seconds: number;
  readonly cpu_throttling: { readonly nr_periods: number; readonly nr_throttled: number; readonly throttled_seconds: number };
}

testNeeding('root')('answers, log and statistics say which limit a call met, and what was used', async (t) => {
  const entry = '{memory: 48Mi, pids: 12, cpu_limit: 50m, timeout: 3s, max_instances: 1}';
  const workspace = await makeWorkspace(t, { greedy: GREEDY }, `functions:\n  greedy: ${entry}\n`);
  const daemon = await startDaemonProcess(t, workspace.directory);
  const stats = async (): Promise<Usage> => await daemon.json<Usage>('/stats/functions/greedy');

  const memory = await daemon.call('/invoke/greedy/memory');
  t.is(memory.status, 502);
  const { memory_peak_bytes: peakBytes, ...oom } = memory.json();
  t.like(oom, { code: 'oom', memory_limit_bytes: 48 << 20 });
  t.true((peakBytes as number) > 40 << 20 && (peakBytes as number) <= 48 << 20);
  t.is((await stats()).memory_peak_bytes, peakBytes as number, 'of an instance that has ended');

  for (const [path, limit, value] of [
    ['processes', 'pids', 12],
    ['files', 'open_files', 1024],
  ] as const) {
    const reply = await daemon.call(`/invoke/greedy/${path}`);
    t.is(reply.status, 500, reply.text);
    t.like(reply.json(), { code: 'handler_error', limits_hit: [{ limit, value }] });
    const callId = reply.headers['x-call-id'] as string;
    const isTold = (line: string): boolean => line.includes('[gitfaas] the limit of') && line.includes(callId);
    await waitUntil(() => daemon.output().split('\n').some(isTold));
    // What it left running would count in the next case.
    const { instances } = await daemon.json<{ instances: { id: string }[] }>('/instances');
    for (const { id } of instances) await daemon.call(`/instances/${id}`, { method: 'DELETE' });
  }

  t.is((await daemon.call('/invoke/greedy/spin')).status, 200);
  const { instances } = await daemon.json<{ instances: Usage[] }>('/instances');
  t.is(instances.length, 1);
  const live = instances[0]!;
  t.true(live.cpu_throttling.nr_throttled > 3, JSON.stringify(live));
  t.true(live.cpu_throttling.throttled_seconds > 0.3, JSON.stringify(live));
  t.true(live.memory_peak_bytes >= live.memory_bytes && live.memory_bytes > 0);
  const before = await stats();
  t.true(before.cpu_throttling.nr_throttled >= live.cpu_throttling.nr_throttled);

  const late = await daemon.call('/invoke/greedy/late');
  t.is(late.status, 504);
  t.like(late.json(), { limits_hit: [{ limit: 'cpu_limit', value: 50 }] });
  const after = await stats();
  t.is(after.memory_bytes, 0, 'nothing lives');
  t.true(after.cpu_throttling.throttled_seconds > before.cpu_throttling.throttled_seconds + 1);
  t.true(after.cpu_seconds > before.cpu_seconds);
  const totals = await daemon.json<Usage>('/stats');
  t.deepEqual(totals.cpu_throttling, after.cpu_throttling, 'there is no other function');
});
