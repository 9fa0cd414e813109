// Packs the package and uses it as a stranger would: the right files and no others, `import` and `require` of the same
// classes, types that resolve in both. The native module is borrowed from this repository.
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { main, root, run } from './common.mjs';

const REQUIRED = [
  'LICENSE',
  'NOTICE',
  'README.md',
  'binding.gyp',
  'dist/cli/main.js',
  'dist/index.d.mts',
  'dist/index.d.ts',
  'dist/index.js',
  'dist/index.mjs',
  'lib/index.ts',
  'scripts/build-native.mjs',
  'types/index.d.ts',
];
const ALLOWED = /^(csrc|cuda|dist|lib|types)\/|^scripts\/(build-native|common|native-config)\.mjs$|^[^/]+$/;
const FORBIDDEN = /(\.test\.|\.stamp|\.o$|\.a$|\.node$|\.safetensors$|compile_commands)/;
const SIZE_LIMIT = 5e6;

await main(async () => {
  const scratch = mkdtempSync(path.join(os.tmpdir(), 'heddle-package-'));
  try {
    const packed = await pack(scratch);
    checkFiles(packed.files.map((file) => file.path));
    if (packed.unpackedSize > SIZE_LIMIT) throw new Error(`the package has ${packed.unpackedSize} bytes`);
    await useIt(scratch, path.join(scratch, packed.filename));
    console.log(`package: ${packed.files.length} files, ${packed.unpackedSize} bytes unpacked`);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
});

async function pack(scratch) {
  const args = ['pack', '--json', '--ignore-scripts', '--loglevel=silent', '--pack-destination', scratch];
  const { output } = await run('npm', args, { capture: true });
  return JSON.parse(output)[0];
}

function checkFiles(files) {
  const missing = REQUIRED.filter((file) => !files.includes(file));
  if (missing.length > 0) throw new Error(`the package lacks ${missing.join(', ')}`);
  const strangers = files.filter((file) => !ALLOWED.test(file) || FORBIDDEN.test(file));
  if (strangers.length > 0) throw new Error(`the package should not have ${strangers.join(', ')}`);
}

async function useIt(scratch, tarball) {
  const modules = path.join(scratch, 'node_modules');
  const installed = path.join(modules, 'heddle');
  mkdirSync(installed, { recursive: true });
  await run('tar', ['-xzf', tarball, '-C', installed, '--strip-components=1']);
  symlinkSync(path.join(root, 'node_modules'), path.join(installed, 'node_modules'));
  symlinkSync(path.join(root, 'build'), path.join(installed, 'build'));

  const code = `import { createRequire } from 'node:module';
import * as esm from 'heddle';
const cjs = createRequire(import.meta.url)('heddle');
const names = (module) => Object.keys(module).filter((name) => name !== 'default').sort().join();
if (names(esm) !== names(cjs)) throw new Error(\`import gives \${names(esm)}, require \${names(cjs)}\`);
if (esm.Engine !== cjs.Engine || typeof esm.Engine !== 'function') throw new Error('two different Engine classes');
`;
  writeFileSync(path.join(scratch, 'use.mjs'), code);
  await run(process.execPath, ['use.mjs'], { cwd: scratch, quiet: true });

  symlinkSync(path.join(root, 'node_modules/@types'), path.join(modules, '@types'));
  const use = `const config: EngineConfig = { model: 'm' };\nexport const engine: Promise<Engine> = Engine.create(config);\n`;
  writeFileSync(path.join(scratch, 'esm.mts'), `import { Engine, type EngineConfig } from 'heddle';\n${use}`);
  writeFileSync(path.join(scratch, 'cjs.cts'), `import { Engine, type EngineConfig } from 'heddle';\n${use}`);
  const tsc = path.join(root, 'node_modules/typescript/bin/tsc');
  const options = [
    '--noEmit',
    '--strict',
    '--module',
    'node16',
    '--target',
    'es2022',
    '--lib',
    'es2023,esnext.disposable',
    '--types',
    'node',
  ];
  await run(process.execPath, [tsc, ...options, 'esm.mts', 'cjs.cts'], { cwd: scratch, quiet: true });
}
