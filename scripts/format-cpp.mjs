// Checks the format of all C++ and CUDA code, or with --write corrects it.
import { createRequire } from 'node:module';

import { listFiles, main, run } from './common.mjs';

await main(async () => {
  const files = listFiles('csrc', 'cuda', 'test').filter((file) => /\.(h|cc|inl|cu|cuh)$/.test(file));
  if (files.length === 0) throw new Error('no C++ source was found');
  // The binary itself: its wrapper buries the findings under a stack trace.
  const clangFormat = createRequire(import.meta.url)('clang-format').getNativeBinary();
  const mode = process.argv.includes('--write') ? ['-i'] : ['--dry-run', '-Werror'];
  const { code } = await run(clangFormat, [...mode, '--style=file', ...files], { mayFail: true });
  return code ?? 1;
});
