import test from 'ava';
import { FaasError } from '../../../../src/errors.ts';
import { chooseNetwork, networkInForce, type NetworkDefault } from '../../../../src/runtimes/process/network/choose-network.ts';

const works = () => Promise.resolve({ missing: [] });
const fails = () => Promise.reject(new FaasError('isolation_unavailable', { detail: 'nft is not installed.' }));

test('egress is the default where it was tried, and elsewhere host with the reason', async (t) => {
  t.like(await chooseNetwork({ level: 'strict', isRoot: true, probe: works }), { auto: 'egress' });
  t.deepEqual(await chooseNetwork({ level: 'strict', isRoot: true, probe: fails }), {
    auto: 'host',
    reason: 'nft is not installed',
    missing: [],
  });
});

test('without root or without isolation nothing is tried', async (t) => {
  const probe = () => t.fail();
  t.regex((await chooseNetwork({ level: 'standard', isRoot: false, probe })).reason, /as root/);
  t.regex((await chooseNetwork({ level: 'none', isRoot: true, probe })).reason, /level none/);
});

const egress: NetworkDefault = { auto: 'egress', reason: 'tried', missing: [] };
const host: NetworkDefault = { auto: 'host', reason: 'nft is not installed', missing: [] };

test('what is asked for by name is given or refused, and only what is not asked for follows the host', (t) => {
  t.is(networkInForce('auto', egress, 'strict'), 'egress');
  t.is(networkInForce('auto', host, 'strict'), 'host');
  t.is(networkInForce('host', egress, 'strict'), 'host');
  t.is(networkInForce('none', host, 'standard'), 'none');
  const refused = t.throws(() => networkInForce('egress', host, 'strict'), { instanceOf: FaasError });
  t.is(refused.code, 'isolation_unavailable');
  t.regex(refused.detail, /network egress: nft is not installed/);
  t.throws(() => networkInForce('none', host, 'none'), { instanceOf: FaasError, message: /network none/ });
});
