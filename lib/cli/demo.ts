/**
 * What `npm start` runs: the bundled model, tensor-parallel over CPU ranks, answering as it thinks.
 *
 * @module
 */
import type { GenerationOutput, GenerationStream, RankStats } from '../../types/outputs';
import type { Engine } from '../index';
import { bundledModel, packageVersion } from './options';
import { exitWhenOutputFails, formatBytes, formatRate, table, write } from './output';
import { openEngine } from './progress';

const RANKS = 2;
const QUESTIONS = ['What does "river" mean?', 'What does "harbor" mean?'];
const PROSE = 'It is a truth universally acknowledged, that';

async function demo(): Promise<void> {
  const start = performance.now();
  const engine = await openEngine({ model: bundledModel, parallel: { tensorParallelSize: RANKS } });
  try {
    const seconds = ((performance.now() - start) / 1e3).toFixed(1);
    await write(`heddle ${packageVersion()}: tiny-lexicon, split over ${RANKS} CPU ranks, loaded in ${seconds} s.\n`);
    await write('It has 8 million parameters: it writes well-formed sentences, most of them untrue.\n\n');
    for (const question of QUESTIONS) {
      await write(`> ${question}\n`);
      await show(engine.chat([{ role: 'user', content: question }], { temperature: 0, maxTokens: 80 }));
    }
    await write(`> (goes on) ${PROSE} ...\n`);
    await show(engine.generate(PROSE, { seed: 3, maxTokens: 96 }));
    await write(`What each rank did:\n${rankTable(engine)}`);
    await write('\nNext: npx heddle chat, or the files in examples/.\n');
  } finally {
    await engine.close();
  }
}

/** Streams an answer and says how fast it came. */
async function show(stream: GenerationStream): Promise<void> {
  for await (const { text } of stream) await write(text);
  await write(`\n  [${speed(await stream.final())}]\n\n`);
}

function speed({ usage, timing }: GenerationOutput): string {
  const { promptTokens, completionTokens } = usage;
  const decodeSeconds = (timing.totalMs - timing.timeToFirstTokenMs) / 1e3;
  const rate = formatRate((completionTokens - 1) / decodeSeconds);
  const ttft = timing.timeToFirstTokenMs.toFixed(0);
  return `${promptTokens} tokens in, ${completionTokens} out: TTFT ${ttft} ms, then ${rate} tokens/s`;
}

function rankTable(engine: Engine): string {
  const row = (rank: RankStats): string[] => [
    `${rank.rank}`,
    `${rank.numHeads}`,
    `${rank.numKVHeads}`,
    formatBytes(rank.weightBytes),
    formatBytes(rank.kvCacheBytes),
    `${rank.busySeconds.toFixed(2)} s`,
    `${rank.communicationSeconds.toFixed(2)} s`,
  ];
  const header = ['rank', 'heads', 'KV heads', 'weights', 'KV cache', 'busy', 'in collectives'];
  return table(header, engine.stats().ranks.map(row));
}

exitWhenOutputFails();
demo().catch((error: unknown) => {
  process.stderr.write(`heddle: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
});
