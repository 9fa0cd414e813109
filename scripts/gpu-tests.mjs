// `npm run test:gpu`: what needs a GPU. The kernels' own tests, the core's native tests with the GPU backend instead of a
// stand-in, then the integration tests that any device passes, on device 'cuda'. Elsewhere it says why it runs nothing.
//
//   node scripts/gpu-tests.mjs [jest arguments]
import path from 'node:path';

import { main, root, run } from './common.mjs';
import { runNativeTests } from './native-tests.mjs';

/** What lets several ranks share one GPU: NCCL 2.30, and kernels that are loaded before ranks wait for each other. */
const SEVERAL_RANKS = {
  NCCL_MULTI_RANK_GPU_ENABLE: '1',
  CUDA_MODULE_LOADING: 'EAGER',
  CUDA_DEVICE_MAX_CONNECTIONS: '32',
};
const LIBRARY = process.env.HEDDLE_CUDA_LIBRARY ?? path.join(root, 'build/cuda/libheddle_cuda.so');
const SUITES = ['goldens', 'tiny-lexicon', 'sampling', 'scheduling', 'abort', 'lifecycle', 'device-memory'];

await main(async () => {
  const reason = await whyNoGpu();
  if (reason !== null) {
    console.log(`skipped: ${reason}`);
    return 0;
  }
  const kernels = await runNativeTests('cuda');
  const core = await runNativeTests('shipped', undefined, { env: { HEDDLE_CUDA_LIBRARY: LIBRARY, ...SEVERAL_RANKS } });
  const jest = path.join(root, 'node_modules/jest/bin/jest.js');
  const args = process.argv.length > 2 ? process.argv.slice(2) : [`test/integration/(${SUITES.join('|')})\\.test`];
  const integration = await run(process.execPath, [jest, ...args], {
    env: { HEDDLE_TEST_DEVICE: 'cuda', ...SEVERAL_RANKS },
    mayFail: true,
  });
  return [kernels, core, integration].every(({ code }) => code === 0) ? 0 : 1;
});

/** Null where the driver shows a GPU. */
async function whyNoGpu() {
  try {
    const { code, output } = await run('nvidia-smi', ['-L'], { capture: true, mayFail: true });
    return code === 0 && output.includes('GPU 0') ? null : `the driver shows no GPU (${output.trim().split('\n')[0]})`;
  } catch {
    return 'there is no NVIDIA driver (nvidia-smi was not found)';
  }
}
