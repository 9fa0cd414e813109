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

/** What one repetition measured. */
interface Measurement {
  /** Prompt tokens of all sequences, over the seconds until the last of them has its first token. */
  prefill: number;
  /** Tokens after each sequence's first, over the seconds from there to the end. */
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

async function measure(
  engine: Engine,
  { promptTokens, maxTokens, sequences }: BenchFlags,
  salt: number,
): Promise<Measurement> {
  const params: SamplingParams = { temperature: 0, maxTokens, ignoreEos: true, detokenize: false };
  const start = performance.now();
  const runs = await Promise.all(
    Array.from({ length: sequences }, async (_, i) => {
      let first = 0;
      let count = 0;
      for await (const { tokenIds } of engine.generate({ tokenIds: syntheticPrompt(promptTokens, i + salt) }, params)) {
        first ||= performance.now();
        count += tokenIds.length;
      }
      return { first, count, end: performance.now() };
    }),
  );
  const first = Math.max(...runs.map((run) => run.first));
  const end = Math.max(...runs.map((run) => run.end));
  const generated = runs.reduce((sum, run) => sum + run.count - 1, 0);
  return {
    prefill: (sequences * promptTokens) / ((first - start) / 1e3),
    decode: generated / ((end - first) / 1e3),
  };
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
