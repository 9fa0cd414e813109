// `npm run bench:loss`: what 8-bit weights, 2:4 sparsity and an 8-bit KV cache cost in accuracy, on tiny-lexicon; written
// into docs/quantization.md.
//
//   npm run bench:loss -- [--device cpu]
//
// The loss is the mean in nats a token over the evaluation set of the test data, whose goldens are transformers' own. What
// is pruned or smoothed here is calibrated on text that the model itself writes, not on that set.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

import { main, root } from '../../scripts/common.mjs';
import { setUp } from '../../scripts/setup.mjs';

const DOCUMENT = path.join(root, 'docs/quantization.md');
const MARK = '<!-- figures: written by npm run bench:loss -->';
const END = '<!-- end of figures -->';
const MODELS = path.join(process.env.HEDDLE_TEST_DATA ?? path.resolve(root, '../shared'), 'models');

/** Texts that the model writes for calibration, and how long each may get. */
const TEXTS = 96;
const TEXT_TOKENS = 200;

// `make(heddle, work)` gives the folder of the model; `config` is the engine's.
const given = (name) => () => path.join(MODELS, name);
const pruned = (method) => (heddle, work) =>
  once(path.join(work.folder, method), (output) =>
    heddle.pruneCheckpoint({ model: work.model, output, method, ...(method === 'magnitude' ? {} : work.calibration) }),
  );
const smoothed = (heddle, work) =>
  once(path.join(work.folder, 'smoothed'), (output) =>
    heddle.quantizeCheckpoint({ model: work.model, output, scheme: 'w8a8', ...work.calibration }),
  );
const ROWS = [
  { title: 'float32', make: given('tiny-lexicon'), config: { dtype: 'float32' } },
  { title: 'bfloat16', make: given('tiny-lexicon'), config: {}, reference: true },
  { title: 'int8 KV cache', make: given('tiny-lexicon'), config: { kvCacheDtype: 'int8' } },
  { title: 'int8', make: given('tiny-lexicon'), config: { quantization: 'int8' } },
  { title: 'w8a8', make: given('tiny-lexicon'), config: { quantization: 'w8a8' } },
  { title: 'w8a8, smoothed', make: smoothed, config: {} },
  { title: 'llm-int8', make: given('tiny-lexicon'), config: { quantization: 'llm-int8' } },
  { title: 'llm-int8, a checkpoint of bitsandbytes', make: given('tiny-lexicon-bnb-int8'), config: {} },
  { title: 'the same, its weights widened', make: given('tiny-lexicon-bnb-int8'), config: { quantization: 'none' } },
  {
    title: 'int8 and an int8 KV cache',
    make: given('tiny-lexicon'),
    config: { quantization: 'int8', kvCacheDtype: 'int8' },
  },
  { title: '2:4, trained so', make: given('tiny-lexicon-2of4'), config: { sparsity: '2:4' } },
  {
    title: '2:4, trained so, int8',
    make: given('tiny-lexicon-2of4'),
    config: { sparsity: '2:4', quantization: 'int8' },
  },
  {
    title: '2:4, trained so, w8a8',
    make: given('tiny-lexicon-2of4'),
    config: { sparsity: '2:4', quantization: 'w8a8' },
  },
  { title: '2:4 by magnitude, no training', make: pruned('magnitude'), config: {} },
  { title: '2:4 by Wanda, no training', make: pruned('wanda'), config: {} },
  { title: '2:4 by SparseGPT, no training', make: pruned('sparsegpt'), config: {} },
  { title: '2:4 by SparseGPT, no training, int8', make: pruned('sparsegpt'), config: { quantization: 'int8' } },
];

await main(async () => {
  const { values } = parseArgs({ options: { device: { type: 'string', default: 'cpu' } } });
  if (!existsSync(MODELS))
    throw new Error(`the models of the test data are not in ${MODELS}; HEDDLE_TEST_DATA names it`);
  await setUp();
  const heddle = await import(path.join(root, 'dist/index.mjs'));
  const work = {
    folder: mkdtempSync(path.join(os.tmpdir(), 'heddle-loss-')),
    model: path.join(MODELS, 'tiny-lexicon'),
  };
  try {
    const calibration = path.join(work.folder, 'calibration.txt');
    writeFileSync(calibration, await writeTexts(heddle, work.model));
    work.calibration = { calibration };
    const lists = JSON.parse(readFileSync(path.join(MODELS, 'eval-chat.json'), 'utf8'));
    const losses = [];
    for (const row of ROWS) {
      const model = await row.make(heddle, work);
      losses.push(await loss(heddle, { model, device: values.device, ...row.config }, lists));
      console.log(`${row.title}: ${losses.at(-1).toFixed(5)}`);
    }
    writeDocument(values.device, losses);
  } finally {
    rmSync(work.folder, { recursive: true });
  }
});

/** What `make(output)` makes in the folder `output`, unless it is there. */
async function once(output, make) {
  if (!existsSync(output)) await make(output);
  return output;
}

/** Definitions and prose in the model's own words, with the names of special tokens. */
async function writeTexts(heddle, model) {
  const engine = await heddle.Engine.create({ model, device: 'cpu', kvCacheBytes: 2 ** 26, seed: 7 });
  try {
    const prompts = Array.from({ length: TEXTS }, (_, i) => (i % 2 === 0 ? '<|user|>\nWhat does "' : ''));
    const params = { maxTokens: TEXT_TOKENS, temperature: 1, skipSpecialTokens: false, ignoreEos: true };
    const texts = await Promise.all(
      prompts.map(
        async (prompt) => prompt + (await engine.generate(prompt === '' ? { tokenIds: [0] } : prompt, params).text()),
      ),
    );
    return texts.join('\n');
  } finally {
    await engine.close();
  }
}

/** The first id of each list is not scored. */
async function loss(heddle, config, lists) {
  const engine = await heddle.Engine.create({ maxNumSeqs: 32, kvCacheBytes: 2 ** 27, ...config });
  try {
    const outputs = await Promise.all(
      lists.map((tokenIds) => {
        const params = { maxTokens: 1, temperature: 0, promptLogprobs: 0, ignoreEos: true, detokenize: false };
        return engine.generate({ tokenIds }, params).final();
      }),
    );
    const logprobs = outputs.flatMap(({ promptLogprobs }) => [...promptLogprobs.logprobs]);
    return -logprobs.reduce((sum, logprob) => sum + logprob, 0) / logprobs.length;
  } finally {
    await engine.close();
  }
}

function writeDocument(device, losses) {
  const reference = losses[ROWS.findIndex((row) => row.reference)];
  const lines = ROWS.map(({ title }, i) => {
    const difference = losses[i] - reference;
    return `| ${title} | ${losses[i].toFixed(4)} | ${difference < 0 ? '−' : '+'}${Math.abs(difference).toFixed(4)} |`;
  });
  const where = device === 'cpu' ? 'a CPU' : 'a GPU';
  const table = ['', `On ${where}, nats a token:`, '', '| | loss | to bfloat16 |', '|---|---|---|', ...lines, '', ''];
  const text = readFileSync(DOCUMENT, 'utf8');
  const begin = text.indexOf(MARK);
  const end = text.indexOf(END, begin);
  if (begin < 0 || end < 0) throw new Error(`${DOCUMENT} lacks the lines ${MARK} and ${END}`);
  writeFileSync(DOCUMENT, `${text.slice(0, begin)}${MARK}\n${table.join('\n')}${text.slice(end)}`);
}
