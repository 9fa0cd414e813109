// Fails when a file compiled for AVX2 or AVX-512 defines a function that other files define too (an inline function or
// template of a shared header): the linker keeps one copy, and if it kept this one, a machine without those
// instructions would crash in code that never asked for them.
import { existsSync } from 'node:fs';
import path from 'node:path';

import { main, root, run } from './common.mjs';

await main(async () => {
  if (process.arch !== 'x64' || process.platform !== 'linux') return;
  for (const isa of ['avx2', 'avx512', 'avx512_vnni', 'avx512_bf16', 'amx']) {
    const archive = path.join(root, `build/Release/heddle_kernels_${isa}.a`);
    if (!existsSync(archive)) throw new Error(`${archive} was not built`);
    // As in the symbols themselves: nm does not know how to read all of them.
    const ours = `3cpu${isa.length}${isa}`;
    const { output } = await run('nm', ['--defined-only', archive], { capture: true });
    const symbols = output.split('\n').flatMap((line) => {
      const [, type, name] = /^[0-9a-f]+ (\w) (.*)$/.exec(line) ?? [];
      return type ? [{ type, name }] : [];
    });
    if (symbols.length === 0) throw new Error(`${archive} defines nothing`);
    const shared = symbols.filter(({ type, name }) => /[WVu]/.test(type) && !name.includes(ours));
    if (shared.length > 0) {
      throw new Error(
        `${isa} kernels define what other files may use:\n${shared.map(({ name }) => `  ${name}`).join('\n')}`,
      );
    }
    console.log(`${isa}: ${symbols.length} symbols, none shared`);
  }
});
