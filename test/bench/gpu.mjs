// `npm run bench:gpu`: the Llama-3.1-8B shape with random bfloat16 weights on one GPU, through the public API. One line
// of JSON a case: medians over the rounds of tokens a second, with their spread.
//
//   npm run bench:gpu -- [--rounds 3]
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

import { main } from '../../scripts/common.mjs';

/** Bytes that one decoding step reads of the weights: all of them but the embedding. */
const WEIGHT_BYTES = 15.01e9;
const LLAMA_8B = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  torch_dtype: 'bfloat16',
  hidden_size: 4096,
  intermediate_size: 14336,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  head_dim: 128,
  vocab_size: 128256,
  max_position_embeddings: 8192,
  rms_norm_eps: 1e-5,
  rope_theta: 500000,
  hidden_act: 'silu',
  tie_word_embeddings: false,
  bos_token_id: 128000,
  eos_token_id: 128001,
};
const CASES = [
  { name: 'decode', batch: 1, prompt: 128, output: 128 },
  { name: 'decode', batch: 8, prompt: 128, output: 64 },
  { name: 'decode', batch: 32, prompt: 128, output: 64 },
  { name: 'decode', batch: 128, prompt: 128, output: 64 },
  { name: 'prefill', batch: 1, prompt: 4096, output: 1 },
];

await main(async () => {
  const { values } = parseArgs({ options: { rounds: { type: 'string', default: '3' } } });
  const rounds = Number(values.rounds);
  const { Engine } = await import('../../dist/index.mjs');
  const model = mkdtempSync(path.join(os.tmpdir(), 'heddle-bench-'));
  try {
    writeFileSync(path.join(model, 'config.json'), JSON.stringify(LLAMA_8B));
    const start = performance.now();
    const engine = await Engine.create({ model, device: 'cuda', loadFormat: 'dummy', enablePrefixCaching: false });
    console.log(JSON.stringify({ name: 'create', seconds: round((performance.now() - start) / 1000) }));
    for (const bench of CASES) {
      await measure(engine, bench); // matrix products are tried out, graphs are captured
      await measure(engine, bench);
      const samples = [];
      for (let i = 0; i < rounds; i++) samples.push(await measure(engine, bench));
      console.log(JSON.stringify(summary(bench, samples)));
    }
    await engine.close();
  } finally {
    rmSync(model, { recursive: true });
  }
});

/** Tokens a second: of the prompt until the first token, or of the output of all sequences together from then on. */
async function measure(engine, { name, batch, prompt, output }) {
  const start = performance.now();
  let first = Infinity;
  const params = { maxTokens: output, temperature: 0, ignoreEos: true, detokenize: false };
  await Promise.all(
    Array.from({ length: batch }, async (_, sequence) => {
      const tokenIds = Array.from({ length: prompt }, (_unused, i) => (i * 7919 + sequence * 104729) % 120000);
      for await (const delta of engine.generate({ tokenIds }, params)) {
        if (delta.tokenIds.length > 0) first = Math.min(first, performance.now());
      }
    }),
  );
  if (name === 'prefill') return (batch * prompt) / ((first - start) / 1000);
  return (batch * (output - 1)) / ((performance.now() - first) / 1000);
}

function summary({ name, batch, prompt, output }, samples) {
  const sorted = samples.toSorted((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)];
  const line = {
    name,
    batch,
    prompt,
    output,
    tokensPerSecond: round(median),
    from: round(sorted[0]),
    to: round(sorted.at(-1)),
  };
  return name === 'decode' && batch === 1
    ? { ...line, weightBytesPerSecond: round((median * WEIGHT_BYTES) / 1e9) * 1e9 }
    : line;
}

function round(value) {
  return Number(value.toPrecision(4));
}
