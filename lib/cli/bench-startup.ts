/**
 * `heddle bench startup`.
 *
 * @module
 */
import type { Command } from 'commander';

import { measureStartup, STARTUP_LEGEND } from '../bench/startup';
import { addBenchFlags, checkCounts, repeat, SPREAD, type BenchFlags, type Columns } from './bench-run';
import { addEngineFlags, engineConfig, numeric, type EngineFlags } from './options';
import { openEngine } from './progress';

/** The first engine of a process also loads the native module, and perhaps the files from the disk. */
const COLUMNS: Columns = {
  'first, cold': ([first]) => first!,
  ...Object.fromEntries(
    Object.entries(SPREAD).map(([name, of]) => [
      `${name}, warm`,
      ([, ...others]: number[]) => (others.length > 0 ? of(others) : NaN),
    ]),
  ),
};

/** Adds the command to `heddle bench`. */
export function addStartupCommand(bench: Command): void {
  const command = bench
    .command('startup')
    .description('seconds until an engine is created, has its first token and is closed, from the same beginning')
    .option('--prompt-tokens <n>', 'tokens of the prompt', numeric, 16);
  addBenchFlags(command, ['engines, one after another in one process, the first of them cold', 5], STARTUP_LEGEND);
  addEngineFlags(command).action(benchStartup);
}

async function benchStartup(flags: EngineFlags & BenchFlags & { promptTokens: number }): Promise<void> {
  checkCounts(flags, { promptTokens: 1, repetitions: 1 });
  const config = engineConfig(flags);
  const bench = {
    name: 'startup',
    config,
    legend: STARTUP_LEGEND,
    settings: { prompt_tokens: flags.promptTokens },
    columns: COLUMNS,
  };
  await repeat(flags, bench, () => measureStartup(() => openEngine(config), flags.promptTokens));
}
