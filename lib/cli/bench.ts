/**
 * `heddle bench`: prefill and decode speed of a model on this machine.
 *
 * @module
 */
import path from 'node:path';

import type { Command } from 'commander';

import type { SamplingParams } from '../../types/options';
import { InvalidArgumentError, type Engine } from '../index';
import { addEngineFlags, engineConfig, numeric, type EngineFlags } from './options';
import { formatRate, table, write } from './output';
import { openEngine } from './progress';

interface BenchFlags extends EngineFlags {
  promptTokens: number;
  maxTokens: number;
  sequences: number;
  repetitions: number;
  json?: boolean;
}

/** What one repetition measured, in tokens a second. */
export interface Measurement {
  /** Prompt tokens of all sequences, over the time until the last of them has its first token. */
  prefill: number;
  /** Tokens made after that moment, over the time from there to the end. */
  decode: number;
}

/** Adds the command to the program. */
export function addBenchCommand(program: Command): void {
  const command = program
    .command('bench')
    .description('measure prefill and decode speed; the prefix cache is off')
    .option('--prompt-tokens <n>', 'tokens of each prompt', numeric, 512)
    .option('-n, --max-tokens <n>', 'tokens to generate, at least 2', numeric, 48)
    .option('--sequences <n>', 'prompts at once', numeric, 1)
    .option('--repetitions <n>', 'measurements, after one that is not counted', numeric, 2)
    .option('--json', 'print one line of JSON a measurement');
  addEngineFlags(command).action(bench);
}

async function bench(flags: BenchFlags): Promise<void> {
  for (const [key, least] of [
    ['promptTokens', 1],
    ['maxTokens', 2],
    ['sequences', 1],
    ['repetitions', 1],
  ] as const) {
    checkCount(key, flags[key], least);
  }
  const maxModelLen = flags.promptTokens + flags.maxTokens + 64;
  const config = { maxModelLen, ...engineConfig(flags), enablePrefixCaching: false };
  const loadStart = performance.now();
  const engine = await openEngine(config);
  const loadSeconds = (performance.now() - loadStart) / 1e3;
  try {
    await measure(engine, { ...flags, sequences: 1 }, 999);
    const measurements: Measurement[] = [];
    for (let i = 0; i < flags.repetitions; ++i) {
      const measurement = await measure(engine, flags, i * 100);
      measurements.push(measurement);
      if (flags.json) await write(jsonLine(flags, config.model, loadSeconds, measurement));
    }
    if (!flags.json) await write(describeAll(measurements, loadSeconds));
  } finally {
    await engine.close();
  }
}

function checkCount(key: string, value: number, least: number): void {
  if (Number.isSafeInteger(value) && value >= least) return;
  throw new InvalidArgumentError(`${key} must be an integer of at least ${least}, received ${String(value)}`);
}

/** Generates from all prompts at once. */
export async function measure(
  engine: Pick<Engine, 'generate' | 'stats'>,
  { promptTokens, maxTokens, sequences }: Pick<BenchFlags, 'promptTokens' | 'maxTokens' | 'sequences'>,
  salt: number,
): Promise<Measurement> {
  const params: SamplingParams = { temperature: 0, maxTokens, ignoreEos: true, detokenize: false };
  const now = (): Moment => ({ time: performance.now(), generated: engine.stats().generatedTokens });
  const start = now();
  // Of the sequence that comes to it last: others generate while it waits, and that is no time of decoding alone.
  let first = start;
  const run = async (prompt: number[]): Promise<void> => {
    let isFirst = true;
    for await (const _ of engine.generate({ tokenIds: prompt }, params)) {
      if (isFirst) first = now();
      isFirst = false;
    }
  };
  await Promise.all(Array.from({ length: sequences }, (_, i) => run(syntheticPrompt(promptTokens, i + salt))));
  const end = now();
  return {
    prefill: (sequences * promptTokens) / ((first.time - start.time) / 1e3),
    decode: (end.generated - first.generated) / ((end.time - first.time) / 1e3),
  };
}

/** How far the engine has come. */
interface Moment {
  /** Milliseconds. */
  time: number;
  /** Tokens since the engine was made. */
  generated: number;
}

/** Ids that no two prompts share a prefix of; any vocabulary of 4000 has them. */
function syntheticPrompt(length: number, salt: number): number[] {
  return Array.from({ length }, (_, i) => 100 + ((i * 7919 + salt * 31) % 3900));
}

function jsonLine(flags: BenchFlags, model: string, loadSeconds: number, { prefill, decode }: Measurement): string {
  const line = {
    model: path.basename(path.resolve(model)),
    promptLen: flags.promptTokens,
    generate: flags.maxTokens,
    sequences: flags.sequences,
    load_s: Number(loadSeconds.toFixed(2)),
    prefill_tok_s: Number(prefill.toFixed(1)),
    decode_tok_s: Number(decode.toFixed(2)),
  };
  return `${JSON.stringify(line)}\n`;
}

function describeAll(measurements: Measurement[], loadSeconds: number): string {
  const rows = measurements.map(({ prefill, decode }, i) => [`${i + 1}`, formatRate(prefill), formatRate(decode)]);
  return `loaded in ${loadSeconds.toFixed(1)} s\n${table(['run', 'prefill tok/s', 'decode tok/s'], rows)}`;
}
