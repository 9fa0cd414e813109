/**
 * `heddle bench throughput`.
 *
 * @module
 */
import type { Command } from 'commander';

import { longestSequence, measureThroughput, THROUGHPUT_LEGEND, type ThroughputWorkload } from '../bench/throughput';
import { addBenchFlags, check, checkCounts, repeatOnEngine, type BenchFlags } from './bench-run';
import { addEngineFlags, engineConfig, numeric, type EngineFlags } from './options';

/** Adds the command to `heddle bench`. */
export function addThroughputCommand(bench: Command): void {
  const command = bench
    .command('throughput')
    .description('how much gets done when many requests keep the engine busy; the prefix cache is off')
    .option('--requests <n>', 'requests of a repetition', numeric, 32)
    .option('--concurrency <n>', 'requests under way at once: the next is sent when one ends', numeric, 8)
    .option('--prompt-tokens <n>', 'tokens of a prompt, on average', numeric, 256)
    .option('-n, --max-tokens <n>', 'tokens that a request generates, on average', numeric, 64)
    .option('--length-spread <x>', 'lengths vary by up to this fraction, 0 to 1, either way', numeric, 0)
    .option('--seed <n>', 'the same seed draws the same lengths', numeric, 0);
  addBenchFlags(command, ['measurements, after a short one that is not counted', 2], THROUGHPUT_LEGEND);
  addEngineFlags(command).action(benchThroughput);
}

async function benchThroughput(flags: EngineFlags & BenchFlags & ThroughputWorkload): Promise<void> {
  checkCounts(flags, { requests: 1, concurrency: 1, promptTokens: 1, maxTokens: 1, seed: 0, repetitions: 1 });
  const { requests, concurrency, promptTokens, maxTokens, lengthSpread, seed } = flags;
  check('lengthSpread', lengthSpread, lengthSpread >= 0 && lengthSpread <= 1, 'a number from 0 to 1');
  const given = engineConfig(flags);
  const bench = {
    name: 'throughput',
    config: { ...given, maxModelLen: given.maxModelLen ?? longestSequence(flags), maxNumWaiting: concurrency },
    legend: THROUGHPUT_LEGEND,
    settings: {
      requests,
      concurrency,
      average_prompt_tokens: promptTokens,
      average_max_tokens: maxTokens,
      length_spread: lengthSpread,
      seed,
    },
  };
  await repeatOnEngine(
    flags,
    bench,
    (engine) => measureThroughput(engine, { ...flags, requests: Math.min(requests, concurrency) }, 0),
    (engine, repetition) => measureThroughput(engine, flags, repetition * requests),
  );
}
