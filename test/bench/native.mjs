// Builds and runs a native benchmark against the code that the module ships.
//
//   node test/bench/native.mjs ceilings [rounds=40]                         one line of JSON a figure
//   node test/bench/native.mjs matmul [threads=2] [rounds=30] [cpu isa] ...  products beside the ceilings, in turns:
//                                                                           matmul_bench.cc
//   node test/bench/native.mjs attention [threads=2] [rounds=25] [cpu isa]  decoding attention, by type of KV cache
//   node test/bench/native.mjs engine MODEL cpu|cuda ...                    requests without JavaScript: engine_bench.cc
import { mkdirSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { buildNative } from '../../scripts/build-native.mjs';
import { main, root, run } from '../../scripts/common.mjs';
import { SOURCE_SETS, flags } from '../../scripts/native-config.mjs';

const PROGRAMS = {
  ceilings: 'ceilings_main.cc',
  matmul: 'matmul_bench.cc',
  attention: 'attention_bench.cc',
  engine: 'engine_bench.cc',
};

await main(async () => {
  const [name, ...args] = process.argv.slice(2);
  if (!Object.hasOwn(PROGRAMS, name)) throw new Error(`one of ${Object.keys(PROGRAMS).join(', ')} expected`);
  await buildNative();
  const binary = path.join(root, 'build/bench', name);
  mkdirSync(path.dirname(binary), { recursive: true });
  const folder = path.join(root, 'test/bench/native');
  const sources = ['ceilings.cc', PROGRAMS[name]].map((file) => path.join(folder, file));
  // The same order as in the module: see binding.gyp.
  const isas = SOURCE_SETS.filter((set) => set !== 'core' && set !== 'napi');
  const archives = ['heddle_core', ...isas.map((isa) => `heddle_kernels_${isa}`)].map((archive) =>
    path.join(root, `build/Release/${archive}.a`),
  );
  const includes = ['csrc', 'cuda/include', 'test/bench/native'].map((include) => `-I${path.join(root, include)}`);
  const compile = [...flags('core'), ...includes, '-o', binary, ...sources];
  await run(process.env.CXX ?? 'g++', [...compile, '-Wl,--start-group', ...archives, '-Wl,--end-group'], {
    quiet: true,
  });
  const threads = name === 'matmul' && args.length === 0 ? [String(os.availableParallelism())] : [];
  return (await run(binary, [...args, ...threads], { mayFail: true })).code ?? 1;
});
