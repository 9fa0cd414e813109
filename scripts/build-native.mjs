// Builds the native module, build/Release/heddle.node, unless it is up to date. Also what `npm install heddle` runs.
//
//   node scripts/build-native.mjs [--force]
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';

import {
  announce,
  fingerprint,
  hasProgram,
  isMain,
  isUpToDate,
  listFiles,
  main,
  root,
  run,
  writeStamp,
} from './common.mjs';

const STAMP = 'build/.native-stamp';
const INPUTS = ['binding.gyp', 'csrc', 'cuda/include', 'scripts/native-config.mjs', 'scripts/build-native.mjs'];
const PROGRAMS = ['make', 'python3', process.env.CXX ?? 'g++'];

export async function buildNative({ force = false } = {}) {
  const require = createRequire(import.meta.url);
  const addonApi = require('node-addon-api/package.json').version;
  const print = fingerprint(listFiles(...INPUTS), process.platform, process.arch, addonApi, process.env.CXX);
  if (!force && existsSync(path.join(root, 'build/Release/heddle.node')) && isUpToDate(STAMP, print)) return;
  await checkPrograms();
  await announce('building the native module (some minutes the first time)', async () => {
    const jobs = Math.max(1, Math.min(os.availableParallelism(), Math.floor(os.totalmem() / 1.5e9)));
    await run(process.execPath, [nodeGyp(require), 'configure', 'build', `--jobs=${jobs}`, ...nodeHeaders()], {
      quiet: true,
    });
  });
  writeStamp(STAMP, print);
}

async function checkPrograms() {
  if (process.platform !== 'linux') return;
  const found = await Promise.all(PROGRAMS.map(hasProgram));
  const missing = PROGRAMS.filter((_, i) => !found[i]);
  if (missing.length > 0)
    throw new Error(`the native build needs ${PROGRAMS.join(', ')}; not found: ${missing.join(', ')}`);
}

/** node-gyp of this repository, or the one that npm brings and announces to install scripts. */
function nodeGyp(require) {
  try {
    return require.resolve('node-gyp/bin/node-gyp.js');
  } catch {
    const bundled = process.env.npm_config_node_gyp;
    if (bundled && existsSync(bundled)) return bundled;
    throw new Error('node-gyp was not found; install heddle with npm, or add node-gyp to your project');
  }
}

/** Headers that came with this Node, so that node-gyp need not fetch them. */
function nodeHeaders() {
  if (process.env.npm_config_nodedir) return [];
  const prefix = path.resolve(process.execPath, '../..');
  return existsSync(path.join(prefix, 'include/node/node_api.h')) ? [`--nodedir=${prefix}`] : [];
}

if (isMain(import.meta.url)) await main(() => buildNative({ force: process.argv.includes('--force') }));
