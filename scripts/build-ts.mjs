// Compiles lib/ to dist/ unless it is up to date, and writes the entry point for `import`: dist/index.mjs names every
// export of the CommonJS build, so both share one set of classes.
//
//   node scripts/build-ts.mjs [--force]
import { chmodSync, existsSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { announce, fingerprint, isMain, isUpToDate, listFiles, main, root, run, writeStamp } from './common.mjs';

const STAMP = 'dist/.stamp';
const INPUTS = ['lib', 'types', 'package.json', 'tsconfig.json', 'tsconfig.build.json', 'scripts/build-ts.mjs'];

export async function buildTypeScript({ force = false } = {}) {
  const print = fingerprint(listFiles(...INPUTS));
  if (!force && isUpToDate(STAMP, print)) return;
  await announce('compiling TypeScript', async () => {
    const { default: ts } = await import('typescript');
    // Built aside and swapped in, so that a failed build leaves the last good one.
    const fresh = path.join(root, 'dist.new');
    rmSync(fresh, { recursive: true, force: true });
    const tsc = path.join(root, 'node_modules/typescript/bin/tsc');
    await run(process.execPath, [tsc, '-p', 'tsconfig.build.json', '--outDir', fresh], { quiet: true });
    writeFileSync(path.join(fresh, 'index.mjs'), esmEntry(valueExports(ts)));
    writeFileSync(path.join(fresh, 'index.d.mts'), "export * from './index.js';\n");
    const cli = path.join(fresh, 'cli/main.js');
    if (existsSync(cli)) chmodSync(cli, 0o755);
    rmSync(path.join(root, 'dist'), { recursive: true, force: true });
    renameSync(fresh, path.join(root, 'dist'));
  });
  writeStamp(STAMP, print);
}

function esmEntry(names) {
  return `import heddle from './index.js';\n\nexport const {\n${names.map((name) => `  ${name},\n`).join('')}} = heddle;\n`;
}

/** Names of what lib/index.ts exports at run time. */
function valueExports(ts) {
  const config = ts.getParsedCommandLineOfConfigFile(path.join(root, 'tsconfig.build.json'), {}, ts.sys);
  const entry = path.join(root, 'lib/index.ts');
  const program = ts.createProgram([entry], config.options);
  const checker = program.getTypeChecker();
  const resolve = (symbol) => (symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol);
  return checker
    .getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(entry)))
    .filter((symbol) => resolve(symbol).flags & ts.SymbolFlags.Value && !isTypeOnly(ts, symbol))
    .map((symbol) => symbol.name)
    .sort();
}

/** Whether an export passed through `export type`. */
function isTypeOnly(ts, symbol) {
  return (symbol.declarations ?? []).some((node) => ts.isTypeOnlyImportOrExportDeclaration(node));
}

if (isMain(import.meta.url)) await main(() => buildTypeScript({ force: process.argv.includes('--force') }));
