/** Wrong input of every kind gets a typed error, and the engine goes on. */
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import type { Engine } from '../../lib/index';
import type { SamplingParams } from '../../types/index';
import { bundledModel, createEngine } from '../helpers/engine';
import { runScript } from '../helpers/script';
import { writeSparseCheckpoint } from '../helpers/sparse-checkpoint';

const SHARD = 'model-00003-of-00003.safetensors';

describe('requests', () => {
  let engine: Engine;
  beforeAll(async () => (engine = await createEngine({ model: bundledModel, maxModelLen: 512 })));
  afterAll(() => engine.close());
  /** After each refusal a control request must succeed. */
  afterEach(async () => {
    const output = await engine.generate({ tokenIds: [6, 7, 8] }, { maxTokens: 2, ignoreEos: true }).final();
    expect(output.outputs[0]!.tokenIds).toHaveLength(2);
  });

  const refusal = async (prompt: unknown, params?: unknown, options?: unknown) => {
    try {
      await engine.generate(prompt as string, params as SamplingParams, options as object).final();
    } catch (error) {
      return error as { code: string; message: string };
    }
    throw new Error('was accepted');
  };

  const BAD_PARAMS: [string, unknown][] = [
    ['temperature', NaN],
    ['temperature', Infinity],
    ['temperature', -1],
    ['temperature', '1'],
    ['temperature', JSON.parse('1e999')],
    ['topP', 0],
    ['topP', 1.5],
    ['topK', -2],
    ['topK', 1.5],
    ['minP', -0.1],
    ['presencePenalty', 3],
    ['frequencyPenalty', NaN],
    ['repetitionPenalty', 0],
    ['n', 0],
    ['n', 1e9],
    ['maxTokens', 0],
    ['maxTokens', 2.5],
    ['minTokens', -1],
    ['seed', -1],
    ['seed', 2 ** 53 + 2],
    ['stop', ['']],
    ['stop', 7],
    ['stopTokenIds', [4096]],
    ['stopTokenIds', [-1]],
    ['logprobs', 21],
    ['logprobs', -1],
    ['promptLogprobs', -2],
    ['promptLogprobs', -1],
    ['logitBias', { 4096: 1 }],
    ['logitBias', { 5: Infinity }],
    ['logitBias', { x: 1 }],
    ['allowedTokenIds', []],
    ['allowedTokenIds', [2 ** 31]],
    ['badWords', ['']],
    ['repetitionDetection', { maxPatternSize: 0, minCount: 2 }],
    ['streamInterval', 0],
    ['outputKind', 'all'],
    ['temprature', 1],
  ];
  it.each(BAD_PARAMS)('%s: %p is refused by name', async (key, value) => {
    const error = await refusal('Hello', { [key]: value });
    expect(error.code).toBe('ERR_INVALID_ARGUMENT');
    expect(error.message).toContain(key);
  });

  const BAD_PROMPTS: [string, unknown][] = [
    ['an empty list of ids', { tokenIds: [] }],
    ['an id beyond the vocabulary', { tokenIds: [5, 4096] }],
    ['a negative id', { tokenIds: [-1] }],
    ['a fractional id', { tokenIds: [1.5] }],
    ['NaN among ids', { tokenIds: [NaN] }],
    ['a lone surrogate', 'a\ud800b'],
    ['ten megabytes of text', 'word '.repeat(2_000_000)],
    ['a number', 5],
    ['null', null],
    ['an unknown key', { txt: 'hi' }],
    ['more ids than maxModelLen', { tokenIds: new Array(5000).fill(7) }],
  ];
  it.each(BAD_PROMPTS)('a prompt that is %s is refused', async (_, prompt) => {
    expect(await refusal(prompt)).toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
  });

  it('unknown request options and bad salts are refused', async () => {
    expect(await refusal('Hi', {}, { sginal: null })).toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    expect(await refusal('Hi', {}, { cacheSalt: 'a b\n' })).toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    expect(await refusal('Hi', {}, { cacheSalt: 'x'.repeat(129) })).toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
  });

  it('refuses ten megabytes without holding the event loop', async () => {
    let last = performance.now();
    let longest = 0;
    const timer = setInterval(() => {
      longest = Math.max(longest, performance.now() - last);
      last = performance.now();
    }, 1);
    await refusal('word '.repeat(2_000_000));
    clearInterval(timer);
    expect(longest).toBeLessThan(250);
  });
});

describe('model folders', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'heddle-model-'));
    cpSync(bundledModel, folder, { recursive: true });
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  const file = (name: string) => path.join(folder, name);
  const edit = (name: string, change: (json: Record<string, unknown>) => void) => {
    const json = JSON.parse(readFileSync(file(name), 'utf8')) as Record<string, unknown>;
    change(json);
    writeFileSync(file(name), JSON.stringify(json));
  };
  /** Rewrites a shard's header, keeping its data. */
  const editHeader = (
    change: (header: Record<string, { dtype: string; shape: number[]; data_offsets: number[] }>) => void,
  ) => {
    const bytes = readFileSync(file(SHARD));
    const length = Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.subarray(8, 8 + length).toString()) as Parameters<typeof change>[0];
    change(header);
    const text = Buffer.from(JSON.stringify(header));
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(text.length));
    writeFileSync(file(SHARD), Buffer.concat([size, text, bytes.subarray(8 + length)]));
  };
  const failure = async () => {
    try {
      await (await createEngine({ model: folder })).close();
    } catch (error) {
      return error as { code: string; message: string };
    }
    throw new Error('was accepted');
  };
  const norm = 'model.norm.weight';

  const BROKEN: [string, string, () => void][] = [
    [
      'a truncated shard',
      'ERR_MODEL_FORMAT',
      () => writeFileSync(file(SHARD), readFileSync(file(SHARD)).subarray(0, 1000)),
    ],
    ['an empty shard', 'ERR_MODEL_FORMAT', () => writeFileSync(file(SHARD), '')],
    ['a missing shard', 'ERR_MODEL_FORMAT', () => rmSync(file(SHARD))],
    [
      'a shape that overflows',
      'ERR_MODEL_FORMAT',
      () => editHeader((h) => (h[norm]!.shape = [4194305, 4194305, 211106198978564])),
    ],
    ['a shape that lies', 'ERR_MODEL_FORMAT', () => editHeader((h) => (h[norm]!.shape = [1000000]))],
    ['tensors that overlap', 'ERR_MODEL_FORMAT', () => editHeader((h) => (h[norm]!.data_offsets = [0, 512]))],
    ['a dtype that does not exist', 'ERR_MODEL_FORMAT', () => editHeader((h) => (h[norm]!.dtype = 'BF17'))],
    ['a dtype that is no float', 'ERR_MODEL_FORMAT', () => editHeader((h) => (h[norm]!.dtype = 'I16'))],
    [
      'a missing tensor',
      'ERR_MODEL_FORMAT',
      () =>
        editHeader((h) => {
          h['model.other.weight'] = h[norm]!;
          delete h[norm];
        }),
    ],
    [
      'a huge header',
      'ERR_MODEL_FORMAT',
      () => {
        const b = readFileSync(file(SHARD));
        b.writeBigUInt64LE(2n ** 63n);
        writeFileSync(file(SHARD), b);
      },
    ],
    ['config.json that is no JSON', 'ERR_MODEL_FORMAT', () => writeFileSync(file('config.json'), '{"a":')],
    ['config.json of the wrong type', 'ERR_MODEL_FORMAT', () => writeFileSync(file('config.json'), '[]')],
    [
      'config.json with a text for a number',
      'ERR_MODEL_FORMAT',
      () => edit('config.json', (c) => (c['hidden_size'] = '256')),
    ],
    [
      'config.json with a negative size',
      'ERR_MODEL_FORMAT',
      () => edit('config.json', (c) => (c['num_hidden_layers'] = -8)),
    ],
    [
      'config.json with sizes that the weights contradict',
      'ERR_MODEL_FORMAT',
      () => edit('config.json', (c) => (c['intermediate_size'] = 641)),
    ],
    [
      'an unknown architecture',
      'ERR_UNSUPPORTED_MODEL',
      () => edit('config.json', (c) => (c['architectures'] = ['MambaForCausalLM'])),
    ],
    [
      'an unknown RoPE type',
      'ERR_UNSUPPORTED_MODEL',
      () => edit('config.json', (c) => (c['rope_parameters'] = { rope_type: 'longrope', rope_theta: 1e4 })),
    ],
    ['an unknown activation', 'ERR_UNSUPPORTED_MODEL', () => edit('config.json', (c) => (c['hidden_act'] = 'relu2'))],
    [
      'a checkpoint quantised in a way that is not read',
      'ERR_UNSUPPORTED_MODEL',
      () => edit('config.json', (c) => (c['quantization_config'] = { quant_method: 'gptq' })),
    ],
    ['a missing config.json', 'ERR_MODEL_FORMAT', () => rmSync(file('config.json'))],
    [
      'a pipe for a config.json',
      'ERR_MODEL_FORMAT',
      () => {
        rmSync(file('config.json'));
        execFileSync('mkfifo', [file('config.json')]);
      },
    ],
    [
      'an endless device for a config.json',
      'ERR_MODEL_FORMAT',
      () => {
        rmSync(file('config.json'));
        symlinkSync('/dev/zero', file('config.json'));
      },
    ],
    ['a broken tokenizer.json', 'ERR_MODEL_FORMAT', () => writeFileSync(file('tokenizer.json'), '{"version":')],
    [
      'a tokenizer.json of another kind',
      'ERR_MODEL_FORMAT',
      () => writeFileSync(file('tokenizer.json'), '{"model": 3}'),
    ],
    [
      'a broken generation_config.json',
      'ERR_MODEL_FORMAT',
      () => writeFileSync(file('generation_config.json'), 'nonsense'),
    ],
  ];
  it.each(BROKEN)('with %s are refused as %s', async (_, code, breakIt) => {
    breakIt();
    const error = await failure();
    expect(error.code).toBe(code);
    expect(error.message.length).toBeGreaterThan(20);
    expect(error.message).not.toMatch(/0x[0-9a-f]{8}/);
  });

  it('that do not exist are refused with the path', async () => {
    await expect(createEngine({ model: '/nowhere/at/all' })).rejects.toMatchObject({ code: 'ERR_MODEL_FORMAT' });
  });

  it.each([
    ['more', 7, /holds model\.layers\.7\..*, which its config\.json gives no use for/],
    ['fewer', 9, /tensor "model\.layers\.8\..*" is missing/],
  ])('with %s weights than the config asks for are refused before any is loaded', async (_, numLayers, message) => {
    edit('config.json', (c) => (c['num_hidden_layers'] = numLayers));
    const onProgress = jest.fn();
    await expect(createEngine({ model: folder, onProgress })).rejects.toMatchObject({
      code: 'ERR_MODEL_FORMAT',
      message: expect.stringMatching(message),
    });
    expect(onProgress).not.toHaveBeenCalled();
  });

  it('whose weights are cut while they load are refused, and the process goes on', async () => {
    const sparse = mkdtempSync(path.join(folder, 'sparse-'));
    const weights = writeSparseCheckpoint(sparse);
    let cutAt = 1;
    const onProgress = (fraction: number) => {
      if (cutAt === 1) truncateSync(weights, 100_000);
      cutAt = Math.min(cutAt, fraction);
    };
    await expect(createEngine({ model: sparse, threads: 1, onProgress })).rejects.toMatchObject({
      code: 'ERR_MODEL_FORMAT',
      message: expect.stringMatching(/model\.safetensors: ended before byte \d+ while it was read/),
    });
    expect(cutAt).toBeLessThan(1);
  });

  it('that are refused leave no thread and no open file behind', async () => {
    const shard = file('model-00002-of-00003.safetensors');
    truncateSync(shard, statSync(shard).size - 1);
    const sparse = mkdtempSync(path.join(folder, 'sparse-'));
    const weights = writeSparseCheckpoint(sparse);
    const { code, stdout, stderr } = await runScript(`
      const { settled } = require('./test/helpers/resources.cjs');
      await (await Engine.create(alone)).close(); // starts thread pools
      console.log('opens stdout');
      const before = resources();
      const cut = () => require('node:fs').truncateSync(${JSON.stringify(weights)}, 100_000);
      for (const config of [{ model: ${JSON.stringify(folder)} }, { model: ${JSON.stringify(sparse)}, onProgress: cut }]) {
        const refusal = await Engine.create({ ...alone, ...config, threads: 2 }).catch((error) => error);
        console.log(refusal.message);
      }
      console.log(JSON.stringify({ before, after: await settled(resources, before) }));`);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const [, headerRefused, loadRefused, counts] = stdout.split('\n');
    expect(headerRefused).toContain('model-00002-of-00003.safetensors');
    expect(loadRefused).toMatch(/ended before byte \d+ while it was read/);
    const { before, after } = JSON.parse(counts!) as Record<string, unknown>;
    expect(after).toEqual(before);
  });

  const withTemplate = async (template: string) => {
    edit('tokenizer_config.json', (c) => (c['chat_template'] = template));
    const engine = await createEngine({ model: folder });
    try {
      const chat = async () => engine.chat([{ role: 'user', content: 'hi' }], { maxTokens: 2 }).final();
      await expect(chat()).rejects.toMatchObject({
        name: expect.stringMatching(/Error$/),
        code: expect.stringMatching(/^ERR_/),
      });
      expect(await engine.generate('Hello', { maxTokens: 2, ignoreEos: true }).text()).toEqual(expect.any(String));
    } finally {
      await engine.close();
    }
  };
  it('whose template throws refuse the chat and nothing else', () => withTemplate("{{ raise_exception('no') }}"));
  it('whose template is broken refuse the chat and nothing else', () => withTemplate('{% if %}'));
  it('whose template never ends refuse the chat and nothing else', () =>
    withTemplate(
      '{% for i in range(100000) %}{% for j in range(100000) %}{% for k in range(100000) %}x{% endfor %}{% endfor %}{% endfor %}',
    ));
});

describe('engine options', () => {
  const BAD: [string, unknown][] = [
    ['device', 'gpu'],
    ['dtype', 'bf16'],
    ['isolation', 'process'],
    ['quantization', 'int4'],
    ['sparsity', '1:4'],
    ['provider', 'cutlass'],
    ['provider', ['bitsandbytes']],
    ['kvCacheDtype', 'int4'],
    ['maxModelLen', 1e9],
    ['maxNumSeqs', 0],
    ['blockSize', 17],
    ['threads', 0],
    ['seed', 1.5],
    ['gpuMemoryUtilization', 1.1],
    ['parallel', { tensorParallelSize: 3 }],
    ['parallel', { tensorParallelSize: 16 }],
    ['parallel', { pipelineParallelSize: 2 }],
    ['parallel', { communicator: 'gloo' }],
    ['parallel', { tensorParalelSize: 2 }],
    ['maxNumSeq', 4],
  ];
  it.each(BAD)('%s: %p is refused by name', async (key, value) => {
    await expect(createEngine({ model: bundledModel, [key]: value })).rejects.toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
      message: expect.stringContaining(key === 'parallel' ? Object.keys(value as object)[0]! : key),
    });
  });

  it('a KV cache too small for one sequence is refused with the bytes it needs', async () => {
    await expect(createEngine({ model: bundledModel, maxModelLen: 2048, kvCacheBytes: 2 ** 20 })).rejects.toMatchObject(
      { code: 'ERR_INSUFFICIENT_MEMORY', message: expect.stringMatching(/\d{7,}/) },
    );
  });
});
