// clang-tidy over csrc/ with the checks of .clang-tidy, in parallel. Writes build/compile_commands.json, which editors
// can use too.
//
//   node scripts/lint-cpp.mjs [file ...]
import { mkdirSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { hasProgram, main, root, run } from './common.mjs';
import { SOURCE_SETS, flags, sources } from './native-config.mjs';
import { nodeHeaders } from './native-tests.mjs';

await main(async () => {
  if (!(await hasProgram('clang-tidy'))) throw new Error('clang-tidy is not installed');
  const commands = compileCommands();
  mkdirSync(path.join(root, 'build'), { recursive: true });
  writeFileSync(path.join(root, 'build/compile_commands.json'), `${JSON.stringify(commands, null, 2)}\n`);

  const wanted = process.argv.slice(2).map((file) => path.resolve(file));
  const files = commands.map(({ file }) => file).filter((file) => wanted.length === 0 || wanted.includes(file));
  if (files.length === 0) throw new Error('no source to check');
  const failed = await checkAll(files);
  console.log(`clang-tidy: ${files.length} files, ${failed} with findings`);
  return failed > 0 ? 1 : 0;
});

function compileCommands() {
  // Vector kernels are the same text for every instruction set; AVX2 stands for them all. AVX-512 with BF16 and AMX have
  // products of their own.
  const sets = SOURCE_SETS.filter(
    (set) =>
      set !== 'avx512' && (process.arch === 'x64' || !['avx2', 'avx512_vnni', 'avx512_bf16', 'amx'].includes(set)),
  );
  return sets.flatMap((set) =>
    sources(set).map((source) => {
      const file = path.join(root, source);
      const node = set === 'napi' ? ['-isystem', nodeHeaders()] : [];
      return {
        directory: root,
        file,
        arguments: ['clang++', ...flags(set), ...node, '-Icsrc', '-Icuda/include', '-c', file],
      };
    }),
  );
}

/** Number of files with findings, which are printed. */
async function checkAll(files) {
  const queue = [...files];
  let failed = 0;
  const worker = async () => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      const { code, output } = await run('clang-tidy', ['--quiet', '-p', 'build', file], {
        capture: true,
        mayFail: true,
      });
      if (code === 0) continue;
      failed++;
      console.log(output);
    }
  };
  await Promise.all(Array.from({ length: os.availableParallelism() }, worker));
  return failed;
}
