/**
 * `heddle bench latency`.
 *
 * @module
 */
import type { Command } from 'commander';

import { LATENCY_LEGEND, measureLatency, type LatencyWorkload } from '../bench/latency';
import { Engine } from '../index';
import { addBenchFlags, checkCounts, repeatOnEngine, type BenchFlags } from './bench-run';
import { addEngineFlags, engineConfig, numeric, type EngineFlags } from './options';

/** Adds the command to `heddle bench`. */
export function addLatencyCommand(bench: Command): void {
  const command = bench
    .command('latency')
    .description('how fast one sequence, or some at once, get their tokens; the prefix cache is off')
    .option('--prompt-tokens <n>', 'tokens of each prompt', numeric, 512)
    .option('-n, --max-tokens <n>', 'tokens to generate, at least 2', numeric, 48)
    .option('--sequences <n>', 'prompts at once', numeric, 1);
  addBenchFlags(command, ['measurements, after one that is not counted', 2], LATENCY_LEGEND);
  addEngineFlags(command).action(benchLatency);
}

async function benchLatency(flags: EngineFlags & BenchFlags & LatencyWorkload): Promise<void> {
  checkCounts(flags, { promptTokens: 1, maxTokens: 2, sequences: 1, repetitions: 1 });
  const { promptTokens, maxTokens, sequences } = flags;
  const given = engineConfig(flags);
  const config = {
    ...given,
    maxModelLen: given.maxModelLen ?? promptTokens + maxTokens,
    maxNumSeqs: given.maxNumSeqs ?? sequences,
    maxNumWaiting: sequences,
  };
  const plan = await Engine.plan(config);
  const bench = {
    name: 'latency',
    config,
    legend: LATENCY_LEGEND,
    settings: { prompt_tokens: promptTokens, max_tokens: maxTokens, sequences },
  };
  const measure = async (engine: Engine, repetition: number): ReturnType<typeof measureLatency> =>
    measureLatency(engine, flags, plan, repetition * sequences);
  await repeatOnEngine(flags, bench, (engine) => measure(engine, 0), measure);
}
