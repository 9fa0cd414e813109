/**
 * What the benchmarks share: their flags, repetitions, and how figures are shown.
 *
 * @module
 */
import path from 'node:path';

import type { Command } from 'commander';

import type { EngineConfig } from '../../types/options';
import type { Figures, Legend } from '../bench/legend';
import { median } from '../bench/statistics';
import { InvalidArgumentError, type Engine } from '../index';
import { numeric } from './options';
import { formatBytes, formatRate, table, write } from './output';
import { openEngine } from './progress';

/** Flags of every benchmark. */
export interface BenchFlags {
  repetitions: number;
  json?: boolean;
}

/** What a column shows of a figure's values, one a repetition. */
export type Columns = Readonly<Record<string, (values: number[]) => number>>;

/** Columns of repetitions that are alike. */
export const SPREAD: Columns = {
  median,
  min: (values) => Math.min(...values),
  max: (values) => Math.max(...values),
};

/** A benchmark as it is asked for. */
export interface Bench<L extends Legend> {
  readonly name: string;
  readonly config: EngineConfig;
  readonly legend: L;
  /** What the output says beside the figures. */
  readonly settings: Readonly<Record<string, number>>;
  /** {@link SPREAD} when absent. */
  readonly columns?: Columns;
}

/** Adds the flags of {@link BenchFlags}, and to the help what the figures mean. */
export function addBenchFlags(
  command: Command,
  repetitions: [meaning: string, count: number],
  legend: Legend,
): Command {
  return command
    .option('--repetitions <n>', repetitions[0], numeric, repetitions[1])
    .option('--json', 'print one line of JSON a repetition, under the names below')
    .addHelpText('after', () => {
      const help = command.createHelp();
      help.prepareContext({ helpWidth: process.stdout.columns || 80 });
      const width = Math.max(...Object.keys(legend).map((key) => key.length));
      const items = Object.entries(legend).map(([key, { label, meaning }]) =>
        help.formatItem(key, width, `${label.trim()}: ${meaning}`, help),
      );
      return ['', 'Figures:', ...items].join('\n');
    });
}

/** @throws InvalidArgumentError for a flag that is not an integer of at least so much. */
export function checkCounts<Key extends string>(flags: Record<NoInfer<Key>, number>, least: Record<Key, number>): void {
  for (const [key, min] of Object.entries(least) as [Key, number][]) {
    check(key, flags[key], Number.isSafeInteger(flags[key]) && flags[key] >= min, `an integer of at least ${min}`);
  }
}

/** @throws InvalidArgumentError unless `valid`. */
export function check(key: string, value: unknown, valid: boolean, expected: string): void {
  if (valid) return;
  const shown = typeof value === 'string' ? JSON.stringify(value) : String(value);
  throw new InvalidArgumentError(`${key} must be ${expected}, received ${shown}`);
}

/** Opens one engine, without a prefix cache, and measures it again and again. */
export async function repeatOnEngine<L extends Legend>(
  flags: BenchFlags,
  bench: Bench<L>,
  warmUp: (engine: Engine) => Promise<unknown>,
  measure: (engine: Engine, repetition: number) => Promise<Figures<L>>,
): Promise<void> {
  const start = performance.now();
  const engine = await openEngine({ ...bench.config, enablePrefixCaching: false });
  const settings = { ...bench.settings, load_s: (performance.now() - start) / 1e3 };
  try {
    await warmUp(engine);
    await repeat(flags, { ...bench, settings }, (repetition) => measure(engine, repetition));
  } finally {
    await engine.close();
  }
}

/** Measures `flags.repetitions` times; prints each as it comes with `--json`, else a table of all. */
export async function repeat<L extends Legend>(
  { repetitions, json }: BenchFlags,
  { name, config, legend, settings, columns = SPREAD }: Bench<L>,
  measure: (repetition: number) => Promise<Figures<L>>,
): Promise<void> {
  const model = path.basename(path.resolve(config.model));
  const all: Figures<L>[] = [];
  for (let repetition = 1; repetition <= repetitions; ++repetition) {
    const figures = await measure(repetition);
    all.push(figures);
    if (json) await write(`${JSON.stringify({ bench: name, model, ...settings, repetition, ...figures })}\n`);
  }
  if (json) return;
  const shown = Object.entries({ ...settings, repetitions }).map(([key, value]) => `${key} ${show(key, value)}`);
  await write(`${model}: ${shown.join(', ')}\n${figureTable(legend, columns, all)}`);
}

function figureTable<L extends Legend>(legend: L, columns: Columns, all: Figures<L>[]): string {
  const rows = Object.entries(legend).map(([key, { label }]) => {
    const values = all.map((figures) => figures[key]!);
    return [label, ...Object.values(columns).map((column) => show(key, column(values)))];
  });
  return table(['', ...Object.keys(columns)], rows);
}

function show(key: string, value: number): string {
  if (key.endsWith('_bytes')) return formatBytes(value);
  return Number.isInteger(value) ? `${value}` : formatRate(value);
}
