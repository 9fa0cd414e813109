import { resolveEngineConfig } from '../../lib/config/engine-config';
import { enterNcclEnvironment, ncclEnvironment } from '../../lib/config/nccl-options';
import type { EngineConfig, NcclOptions } from '../../types/options';
import { NCCL_DEFAULTS } from '../helpers/nccl';

const resolve = (nccl: unknown, config: Partial<EngineConfig> = {}) =>
  resolveEngineConfig({
    model: 'some/folder',
    ...config,
    parallel: { tensorParallelSize: 2, ...config.parallel, nccl: nccl as NcclOptions },
  }).nccl;

describe('NcclOptions', () => {
  it('leave everything to NCCL by default', () => {
    for (const nccl of [resolve(undefined), resolve({}), resolve({ maxCtas: undefined })]) {
      expect(nccl).toEqual({ communicator: NCCL_DEFAULTS, variables: [] });
    }
  });

  it.each<[NcclOptions, Partial<typeof NCCL_DEFAULTS>]>([
    [
      { minCtas: 2, maxCtas: 2 },
      { minCtas: 2, maxCtas: 2 },
    ],
    [{ maxCtas: 64 }, { maxCtas: 64 }],
    [{ cgaClusterSize: 0 }, { cgaClusterSize: 0 }],
    [{ nvlsCtas: 16 }, { nvlsCtas: 16 }],
    [{ ctaPolicy: 'default' }, { ctaPolicy: 0 }],
    [{ ctaPolicy: 'efficiency' }, { ctaPolicy: 1 }],
    [{ ctaPolicy: 'zero' }, { ctaPolicy: 2 }],
    [{ collnetEnable: false }, { collnetEnable: 0 }],
    [{ trafficClass: 106 }, { trafficClass: 106 }],
    [{ channelsPerNetPeer: 4 }, { channelsPerNetPeer: 4 }],
    [{ nvlinkCentricScheduling: true }, { nvlinkCentricScheduling: 1 }],
    [
      { netName: 'Socket', commName: 'ranks' },
      { netName: 'Socket', commName: 'ranks' },
    ],
  ])('give %j to the communicator, and need no variable', (given, fields) => {
    const nccl = resolve(given);
    expect(nccl.communicator).toEqual({ ...NCCL_DEFAULTS, ...fields });
    expect(ncclEnvironment(nccl)).toEqual({});
  });

  it.each<[NcclOptions, Record<string, string>]>([
    [{ algorithm: 'ring' }, { NCCL_ALGO: 'allreduce:ring' }],
    [{ protocol: 'll128' }, { NCCL_PROTO: 'allreduce:ll128' }],
    [{ bufferBytes: 2 ** 24 }, { NCCL_BUFFSIZE: '16777216' }],
    [{ socketInterface: '=eth0' }, { NCCL_SOCKET_IFNAME: '=eth0' }],
    [{ ibDevices: '^mlx5_3:1' }, { NCCL_IB_HCA: '^mlx5_3:1' }],
    [{ p2pLevel: 'nvl' }, { NCCL_P2P_LEVEL: 'NVL' }],
    [{ nvls: false }, { NCCL_NVLS_ENABLE: '0' }],
    [
      { debug: 'info', nvls: true },
      { NCCL_DEBUG: 'INFO', NCCL_NVLS_ENABLE: '1' },
    ],
  ])('spell %j as NCCL reads it from its environment', (given, environment) => {
    const nccl = resolve(given);
    expect(ncclEnvironment(nccl)).toEqual(environment);
    expect(nccl.communicator).toEqual(NCCL_DEFAULTS);
  });

  it.each([
    [7, 'parallel.nccl must be an object, received 7'],
    [{ maxChannels: 4 }, 'unknown key "maxChannels" in parallel.nccl'],
    [{ max_ctas: 4 }, 'unknown key "max_ctas" in parallel.nccl; did you mean "maxCtas"?'],
    [{ minCtas: 0 }, 'parallel.nccl.minCtas must be an integer from 1 to 64, received 0'],
    [{ maxCtas: 65 }, 'parallel.nccl.maxCtas must be an integer from 1 to 64, received 65'],
    [{ minCtas: 5, maxCtas: 4 }, 'parallel.nccl.minCtas must be at most maxCtas (4), received 5'],
    [{ cgaClusterSize: 9 }, 'parallel.nccl.cgaClusterSize must be an integer from 0 to 8, received 9'],
    [{ nvlsCtas: '16' }, 'parallel.nccl.nvlsCtas must be an integer from 1 to 64, received "16"'],
    [{ ctaPolicy: 1 }, 'parallel.nccl.ctaPolicy must be one of "default", "efficiency" and "zero", received 1'],
    [{ collnetEnable: 1 }, 'parallel.nccl.collnetEnable must be true or false, received 1'],
    [{ trafficClass: -1 }, 'parallel.nccl.trafficClass must be an integer from 0 to 2147483647, received -1'],
    [{ channelsPerNetPeer: 1.5 }, 'parallel.nccl.channelsPerNetPeer must be an integer from 1 to 64, received 1.5'],
    [{ nvlinkCentricScheduling: 'yes' }, 'parallel.nccl.nvlinkCentricScheduling must be true or false'],
    [{ netName: '' }, 'parallel.nccl.netName must be a string of 1 to 128 printable ASCII characters without spaces'],
    [{ commName: 'a\0b' }, 'parallel.nccl.commName must be a string of 1 to 128 printable'],
    [{ algorithm: 'Ring' }, 'parallel.nccl.algorithm must be one of "ring", "tree" and "nvls", received "Ring"'],
    [{ protocol: 'll256' }, 'parallel.nccl.protocol must be one of "simple", "ll" and "ll128", received "ll256"'],
    [{ bufferBytes: 2 ** 20 + 1 }, 'parallel.nccl.bufferBytes must be a power of two from 65536 to 268435456'],
    [{ bufferBytes: 2 ** 15 }, 'parallel.nccl.bufferBytes must be a power of two from 65536 to 268435456'],
    [{ bufferBytes: 2 ** 29 }, 'parallel.nccl.bufferBytes must be a power of two from 65536 to 268435456'],
    [{ socketInterface: 'eth0 eth1' }, 'parallel.nccl.socketInterface must be a string of 1 to 128 printable'],
    [{ ibDevices: [] }, 'parallel.nccl.ibDevices must be a string of 1 to 128 printable'],
    [{ p2pLevel: 'NVL' }, 'parallel.nccl.p2pLevel must be one of "loc", "nvl", "pix", "pxb", "phb" and "sys"'],
    [{ nvls: 2 }, 'parallel.nccl.nvls must be true or false, received 2'],
    [{ debug: 'loud' }, 'parallel.nccl.debug must be one of "version", "warn", "info" and "trace", received "loud"'],
  ])('refuse %j in one sentence', (nccl, message) => {
    expect(() => resolve(nccl)).toThrow(message);
  });

  it('have no effect with one rank', () => {
    expect(resolve({ debug: 'warn', maxCtas: 4 }, { parallel: { tensorParallelSize: 1 } })).toEqual(resolve({}));
  });

  it('are refused where ranks never meet on a GPU, and accepted where they may', () => {
    expect(() => resolve({}, { device: 'cpu' })).toThrow('parallel.nccl must be left out on device "cpu"');
    expect(() => resolve({}, { parallel: { communicator: 'local' } })).toThrow(
      'parallel.nccl must be left out with communicator "local"',
    );
    expect(() => resolve({}, { device: 'auto' })).not.toThrow();
    expect(() => resolve({}, { device: 'cuda', parallel: { communicator: 'nccl' } })).not.toThrow();
  });
});

describe('the environment of NCCL', () => {
  const clear = () => Object.keys(process.env).forEach((name) => name.startsWith('NCCL_') && delete process.env[name]);
  beforeEach(clear);
  afterAll(clear);

  const enter = (options: NcclOptions) => enterNcclEnvironment(resolve(options));

  it('gets the process-wide options, and no others', () => {
    enter({ debug: 'warn', maxCtas: 4 });
    expect(process.env).toMatchObject({ NCCL_DEBUG: 'WARN' });
    expect(process.env).not.toHaveProperty('NCCL_MAX_CTAS');
  });

  it('loses what it got, and nothing else, when that is undone', () => {
    process.env['NCCL_PROTO'] = 'allreduce:ll';
    enter({ debug: 'warn', protocol: 'll' })();
    expect(process.env).not.toHaveProperty('NCCL_DEBUG');
    expect(process.env).toMatchObject({ NCCL_PROTO: 'allreduce:ll' });
  });

  it('may say the same already', () => {
    Object.assign(process.env, { NCCL_DEBUG: 'WARN', NCCL_MAX_CTAS: '4', NCCL_PROTO: '' });
    expect(() => enter({ debug: 'warn', maxCtas: 4, protocol: 'll' })).not.toThrow();
    expect(process.env).toMatchObject({ NCCL_PROTO: 'allreduce:ll' });
  });

  it.each<[NcclOptions, string, string, string]>([
    [{ algorithm: 'ring' }, 'NCCL_ALGO', 'Tree', 'parallel.nccl.algorithm "ring" needs NCCL_ALGO=allreduce:ring'],
    [{ debug: 'info' }, 'NCCL_DEBUG', 'WARN', 'parallel.nccl.debug "info" needs NCCL_DEBUG=INFO'],
    [{ maxCtas: 4 }, 'NCCL_MAX_CTAS', '8', 'parallel.nccl.maxCtas 4 needs NCCL_MAX_CTAS=4'],
    [{ ctaPolicy: 'zero' }, 'NCCL_CTA_POLICY', 'DEFAULT', 'parallel.nccl.ctaPolicy "zero" needs NCCL_CTA_POLICY=ZERO'],
    [{ collnetEnable: true }, 'NCCL_COLLNET_ENABLE', '0', 'parallel.nccl.collnetEnable true needs'],
  ])('keeps the last word: %j is refused beside %s=%s', (options, name, value, message) => {
    process.env[name] = value;
    const end = `or none in the environment, which has ${name}="${value}"`;
    expect(() => enter({ socketInterface: 'eth0', ...options })).toThrow(message);
    expect(() => enter({ socketInterface: 'eth0', ...options })).toThrow(end);
    expect(process.env[name]).toBe(value);
    expect(process.env).not.toHaveProperty('NCCL_SOCKET_IFNAME');
  });

  it('holds for a second engine as the first one left it', () => {
    enter({ protocol: 'simple' });
    enter({ protocol: 'simple' });
    expect(() => enter({ protocol: 'll' })).toThrow('needs NCCL_PROTO=allreduce:ll or none');
  });
});
