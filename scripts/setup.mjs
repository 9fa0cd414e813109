// Brings a clone to the state in which everything runs: dependencies, native module, compiled TypeScript. Does only
// what is missing or out of date, and says nothing when that is nothing.
import { existsSync } from 'node:fs';
import path from 'node:path';

import { buildNative } from './build-native.mjs';
import { buildTypeScript } from './build-ts.mjs';
import { announce, fingerprint, isMain, isUpToDate, main, root, run, writeStamp } from './common.mjs';

const STAMP = 'node_modules/.heddle-stamp';

export async function setUp() {
  await installDependencies();
  await buildNative();
  await buildTypeScript();
}

async function installDependencies() {
  const major = Number(process.versions.node.split('.')[0]);
  if (major < 20) throw new Error(`Node 20 or later is needed; this is ${process.version}`);
  const print = fingerprint(['package-lock.json'], process.platform, process.arch);
  if (existsSync(path.join(root, 'node_modules')) && isUpToDate(STAMP, print)) return;
  await announce('installing dependencies', async () => {
    await run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'], { quiet: true });
  });
  writeStamp(STAMP, print);
}

if (isMain(import.meta.url)) await main(setUp);
