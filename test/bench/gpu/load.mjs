// Loading a checkpoint, beside what copying to the device can reach in the same run.
import { closeSync, openSync, readSync, statSync } from 'node:fs';
import os from 'node:os';
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
 * rate from the first weights to the last.
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
  const rates = summary(others.map(({ weights }) => gigabytes / weights));
  const best = Math.max(...ceilings.map(({ rate }) => rate));
  print({
    name: 'load',
    gigabytes: round(gigabytes),
    first: { create: round(first.create_s), firstToken: round(first.first_token_s) },
    create: summary(others.map(({ create_s }) => create_s)),
    firstToken: summary(others.map(({ first_token_s }) => first_token_s)),
    gbPerSecond: rates,
    ...(ceilings.length > 0 && { ofCopying: round(rates.median / best) }),
  });
}

/** What the start of an engine took, in seconds; `weights` from the first of them to the last. */
async function load(Engine, options) {
  let first;
  let last;
  const onProgress = () => {
    last = performance.now();
    first ??= last;
  };
  const startup = await measureStartup(() => Engine.create({ ...options, onProgress }), PROMPT_TOKENS);
  return { ...startup, weights: (last - first) / 1000 };
}

/** Brings a file into the page cache. */
function readThrough(file) {
  const buffer = Buffer.alloc(16 * 2 ** 20);
  const descriptor = openSync(file);
  while (readSync(descriptor, buffer) > 0);
  closeSync(descriptor);
}
