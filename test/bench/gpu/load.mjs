// Loading a checkpoint, beside what copying to the device can reach in the same run.
import { closeSync, openSync, readSync, statSync } from 'node:fs';
import path from 'node:path';

import { measureStartup } from '../../../dist/bench/startup.js';
import { run } from '../../../scripts/common.mjs';
import { checkpointFolder, WEIGHTS } from '../shapes.mjs';
import { jsonLines } from '../sides.mjs';
import { round, summary } from '../statistics.mjs';

const PROMPT_TOKENS = 16;

/**
 * Prints a line for each ceiling and one of the engines: in seconds, how long `Engine.create` takes and how long it is
 * from its call to the first token, of the first engine of the process and of those that follow it; of these also the
 * rate from the end of the first matrix to that of the last.
 */
export async function measureLoad(Engine, { shape, device, folder, rounds, copy }, print) {
  const model = checkpointFolder(shape, folder);
  const file = path.join(model, WEIGHTS);
  readThrough(file);
  const ceilings = copy ? await measureCeilings(copy, file) : [];
  for (const ceiling of ceilings) print(ceiling);
  const first = await load(Engine, { model, device });
  const others = [];
  for (let i = 0; i < rounds; i++) others.push(await load(Engine, { model, device }));
  const gigabytes = statSync(file).size / 1e9;
  const rates = summary(others.map(({ sharePerSecond }) => gigabytes * sharePerSecond));
  const copying = ceilings.find(({ op }) => op === 'copying page-locked memory');
  print({
    name: 'load',
    gigabytes: round(gigabytes),
    first: { create: round(first.create_s), firstToken: round(first.first_token_s) },
    create: summary(others.map(({ create_s }) => create_s)),
    firstToken: summary(others.map(({ first_token_s }) => first_token_s)),
    gbPerSecond: rates,
    ...(copying && { ofCopying: round(rates.median / copying.rate) }),
  });
}

/**
 * What the start of an engine took, in seconds; and the share of the weights a second, from the end of the first matrix to
 * that of the last.
 */
async function load(Engine, options) {
  let first;
  let last;
  const onProgress = (share) => {
    const progress = { share, seconds: performance.now() / 1000 };
    first ??= progress;
    if (last?.share !== 1) last = progress; // the cache of keys and values is still to be made then
  };
  const startup = await measureStartup(() => Engine.create({ ...options, onProgress }), PROMPT_TOKENS);
  return { ...startup, sharePerSecond: (last.share - first.share) / (last.seconds - first.seconds) };
}

async function measureCeilings(program, file) {
  return jsonLines((await run(path.resolve(program), [file], { capture: true })).output);
}

/** Brings a file into the page cache. */
function readThrough(file) {
  const buffer = Buffer.alloc(16 * 2 ** 20);
  const descriptor = openSync(file);
  while (readSync(descriptor, buffer) > 0);
  closeSync(descriptor);
}
