import type { Attempt } from './attempt.ts';

/** Other processes: the host's, the launcher's, the daemon's, and those that were to outlive the call. */
export const REACHING: readonly Attempt[] = [
  {
    title: 'kills everybody',
    code: 'result = [outcome(os.kill, -1, 9), outcome(os.kill, 2, 9), outcome(os.kill, 1, 9), outcome(os.kill, facts["daemon"], 9)]',
    result: ['ESRCH', 'ESRCH', null, 'ESRCH'],
    node: {
      code: `return [outcome(() => process.kill(facts.daemon, 9)), outcome(() => process.kill(1, 9)), outcome(() => process.kill(-1, 0))];`,
      result: ['ESRCH', true, 'ESRCH'],
    },
  },
  {
    title: 'signals and stops the launcher, by pid, by group and by session',
    code: `
targets = [*facts["launchers"], facts["daemon"], *(-pid for pid in facts["launchers"])]
result = sorted({outcome(os.kill, pid, number) for pid in targets for number in (signal.SIGSTOP, signal.SIGKILL, 0)}
    | {outcome(os.killpg, os.getpgid(0), 0) and "reached"} - {None})`,
    result: ['ESRCH'],
    node: {
      code: `
const targets = [...facts.launchers, facts.daemon, ...facts.launchers.map((pid) => -pid)];
return [...new Set(targets.flatMap((pid) => ['SIGSTOP', 'SIGKILL', 0].map((signal) => outcome(() => process.kill(pid, signal)))))];`,
      result: ['ESRCH'],
    },
  },
  {
    title: 'looks for the daemon’s sockets and listener',
    code: `
def connect():
    socket.create_connection(("127.0.0.1", facts["port"]), 1).close()
result = [outcome(os.listdir, "/run"), outcome(connect), [name for name in os.listdir("/tmp") if "gitfaas" in name]]`,
    result: ['ENOENT', 'ECONNREFUSED', []],
    node: 'python',
  },
  {
    title: 'sends the daemon descriptors instead of answers',
    code: `
import array
null = os.open("/dev/null", os.O_RDONLY)
def send():
    with socket.socket(fileno=os.dup(channel)) as connection:
        for _ in range(50):
            connection.sendmsg([fact(26, 0, {"stream": "stdout", "text": "x"})], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * 200))])
# Those that nobody has taken yet are counted against the sender.
result = outcome(send) in (None, "ETOOMANYREFS")`,
    result: true,
    node: { notFor: 'Node has no call that sends descriptors, and a child process does not get the channel' },
  },
  {
    title: 'outlives the launcher by another identity',
    code: `
os.setresuid(65534, 65534, 65534)
os.setresgid(65534, 65534, 65534)
number = ctypes.c_int(0)
libc.prctl(2, ctypes.byref(number), 0, 0, 0)
result = [number.value, outcome(lambda: libc.prctl(1, 0, 0, 0, 0)), outcome(lambda: libc.prctl(4, 0, 0, 0, 0))]`,
    result: [9, -1, -1],
    node: { notFor: 'the death signal belongs to pid 1, which is not the function; its end takes the function along' },
  },
  {
    title: 'outlives its timeout in a session of its own',
    code: `
if os.fork() == 0:
    os.setsid()
    for number in range(1, 65): outcome(signal.signal, number, signal.SIG_IGN)
    os.execv("/bin/sleep", ["sleep", "86399.25"])
while True: pass`,
    failure: 'timeout',
    node: {
      code: `
spawn('/bin/sh', ['-c', 'trap "" TERM HUP INT; exec setsid sleep 86399.25'], { detached: true, stdio: 'ignore' }).unref();
block();`,
    },
  },
  {
    title: 'leaves orphans that nobody waits for, until it gets no more',
    code: `
def fork_twice(count):
    if os.fork() == 0:
        outcome(lambda: os.fork() or os._exit(0))
        os._exit(0)
    os.wait()
result = outcome(lambda: [fork_twice(count) for count in range(40)]) != []`,
    result: true,
    node: 'python',
  },
  {
    title: 'comes back for its orphans’ places',
    code: `
pid = os.fork()
if pid == 0: os._exit(7)
result = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])`,
    result: 7,
    node: 'python',
  },
];
