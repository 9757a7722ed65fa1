import test from 'ava';
import { labelOptions, readLabelHost, type LabelHost, type WantedLabels } from '../../../src/runtimes/process/security-labels.ts';
import { RuntimeFixture } from '../../support/process-runtime.ts';

const BARE: LabelHost = { apparmor: false, apparmorProfiles: undefined, selinux: false };
const APPARMOR: LabelHost = { ...BARE, apparmor: true, apparmorProfiles: new Set(['gitfaas-function', 'a b']) };
const UNREADABLE: LabelHost = { ...BARE, apparmor: true };
const SELINUX: LabelHost = { ...BARE, selinux: true };
const CONTAINER = 'system_u:system_r:container_t:s0';
const profileFile = '/proc/self/attr/apparmor/current';
const profileOption = { file: profileFile, text: 'changeprofile gitfaas-function', shows: 'gitfaas-function' };
const contextOption = { file: '/proc/self/attr/current', text: CONTAINER, shows: CONTAINER };

const TABLE: readonly (readonly [what: string, wanted: Partial<WantedLabels>, host: LabelHost, result: object[] | RegExp])[] = [
  ['nothing on a bare host', {}, BARE, []],
  ['nothing on a host with both', {}, { ...APPARMOR, selinux: true }, []],
  ['a loaded profile', { apparmorProfile: 'gitfaas-function' }, APPARMOR, [profileOption]],
  ['a profile where the list cannot be read', { apparmorProfile: 'gitfaas-function' }, UNREADABLE, [profileOption]],
  ['a profile that is not loaded', { apparmorProfile: 'other' }, APPARMOR, /other is not loaded; load it with apparmor_parser/],
  ['a profile without AppArmor', { apparmorProfile: 'gitfaas-function' }, SELINUX, /AppArmor is not enabled/],
  ['a context', { selinuxLabel: CONTAINER }, SELINUX, [contextOption]],
  ['a context without SELinux', { selinuxLabel: CONTAINER }, APPARMOR, /SELinux is not enabled/],
  [
    'both',
    { apparmorProfile: 'gitfaas-function', selinuxLabel: CONTAINER },
    { ...APPARMOR, selinux: true },
    [profileOption, contextOption],
  ],
];

for (const [what, wanted, host, result] of TABLE) {
  test(`labels: ${what}`, (t) => {
    const options = () => labelOptions({ apparmorProfile: '', selinuxLabel: '', ...wanted }, host);
    if (Array.isArray(result)) t.deepEqual(options(), result as never);
    else t.throws(options, { code: 'isolation_unavailable', message: result });
  });
}

test('this host can be asked', (t) => {
  const host = readLabelHost();
  t.is(typeof host.apparmor, 'boolean');
  t.is(typeof host.selinux, 'boolean');
});

test.serial('an instance that cannot take its label does not start, and the step is named', async (t) => {
  const label = { file: '/proc/self/attr/current', text: 'no such label', shows: 'no such label' };
  const error = await t.throwsAsync(RuntimeFixture.open({ labels: [label], isolation: 'standard' }));
  t.regex(error?.message ?? '', /step labels: .*attr\/current/);
});
