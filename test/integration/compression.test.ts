/** Checkpoints made smaller: what comes out is read by a reader of the test's own. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync, mkdirSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Worker } from 'node:worker_threads';

import { pruneCheckpoint, quantizeCheckpoint } from '../../lib/index';
import { evaluateLoss } from '../../lib/compress/evaluate-loss';
import { readSequences } from '../../lib/compress/text-sequences';
import type { PruneOptions } from '../../types/index';
import { decompress, isTwoOfFour, readConfig, readTensors, writeDenseCopy } from '../helpers/compressed-checkpoint';
import { bundledModel, eventually, withEngine } from '../helpers/engine';
import { builtPackage } from '../helpers/script';
import { writeSparseCheckpoint } from '../helpers/sparse-checkpoint';

type Weights = Map<string, Float32Array>;

const PROGRAM = path.resolve(__dirname, '../../dist/cli/main.js');
const METHODS = ['magnitude', 'wanda', 'sparsegpt'] as const;

let folder: string;
let text: string;

const at = (name: string): string => path.join(folder, name);
const entries = (): string[] => readdirSync(folder).sort();

/** What the model writes is what it knows: a text that calibrates it. */
async function writeText(): Promise<string> {
  const words = 'river harbor letter garden music winter doctor engine mirror forest castle teacher'.split(' ');
  return withEngine({ model: bundledModel }, async (engine) => {
    const answers = words.map(async (word, seed) => {
      const question = `<|bos|><|user|>\nWhat does "${word}" mean?<|end|>\n<|assistant|>\n`;
      return question + (await engine.generate(question, { seed, maxTokens: 60 }).text());
    });
    const prose = words.map((word, seed) => engine.generate(`She had a ${word}`, { seed, maxTokens: 60 }).text());
    return (await Promise.all([...answers, ...prose])).join('\n');
  });
}

beforeAll(async () => {
  const made = mkdtempSync(path.join(os.tmpdir(), 'heddle-compression-text-'));
  text = path.join(made, 'text.txt');
  writeFileSync(text, await writeText());
});
afterAll(() => rmSync(path.dirname(text), { recursive: true }));
beforeEach(() => (folder = mkdtempSync(path.join(os.tmpdir(), 'heddle-compression-'))));
afterEach(() => rmSync(folder, { recursive: true }));

/** The loss of the float32 weights that a compressed checkpoint stands for. */
async function lossOfDenseCopy(compressed: string): Promise<number> {
  const copy = `${compressed}-copy`;
  writeDenseCopy(compressed, copy);
  const settings = { name: 'evaluation', sequenceLength: null, maxTokens: 65536 } as const;
  return evaluateLoss(copy, await readSequences(text, bundledModel, settings), null);
}

/** The largest of the differences to other values, or to zero. */
function magnitude(values: Float32Array, others?: Float32Array): number {
  let largest = 0;
  for (let i = 0; i < values.length; ++i) largest = Math.max(largest, Math.abs(values[i]! - (others?.[i] ?? 0)));
  return largest;
}

/** Whether two checkpoints of this test stand for the same weights. */
function sameWeights(...names: [string, string]): boolean {
  const [a, b] = names.map((name) => decompress(readTensors(at(name)))) as [Weights, Weights];
  return (
    a.size === b.size &&
    [...a].every(([name, values]) => Buffer.from(values.buffer).equals(Buffer.from(b.get(name)!.buffer)))
  );
}

const prune = (method: PruneOptions['method'], name: string, options: Partial<PruneOptions> = {}) =>
  pruneCheckpoint({ model: bundledModel, output: at(name), method, calibration: text, ...options });

describe('a checkpoint that is quantised', () => {
  it.each([
    ['int8', undefined, 'pack-quantized'],
    ['w8a8', 0, 'int-quantized'],
    ['w8a8', 0.5, 'int-quantized'],
  ] as const)('as %s, smoothed by %s, has nearly the same loss', async (scheme, smooth, format) => {
    const { loss, numMatrices } = await quantizeCheckpoint({
      model: bundledModel,
      output: at('small'),
      scheme,
      smooth,
      calibration: text,
    });
    expect(numMatrices).toBe(56);
    expect(Math.abs(loss!.after! - loss!.before!)).toBeLessThan(0.02);
    // What the engine makes of it is what it stands for, but for rounded inputs.
    expect(Math.abs((await lossOfDenseCopy(at('small'))) - loss!.after!)).toBeLessThan(0.02);
    const { format: written, config_groups: groups, ignore } = readConfig(at('small')).quantization_config!;
    expect(written).toBe(format);
    expect(ignore).toEqual(['lm_head']);
    expect(groups!['group_0']!.weights.num_bits).toBe(8);
    expect(groups!['group_0']!.input_activations === null).toBe(scheme === 'int8');
  });

  it('keeps everything else: shards, other tensors, the rest of config.json, small files', async () => {
    await quantizeCheckpoint({ model: bundledModel, output: at('small'), scheme: 'int8' });
    expect(readdirSync(at('small')).sort()).toEqual(readdirSync(bundledModel).sort());
    const { quantization_config: _, ...config } = readConfig(at('small'));
    expect(config).toEqual(readConfig(bundledModel));
    const before = readTensors(bundledModel);
    const after = readTensors(at('small'));
    for (const name of ['model.embed_tokens.weight', 'model.norm.weight', 'model.layers.3.input_layernorm.weight']) {
      expect(after.get(name)!.data.equals(before.get(name)!.data)).toBe(true);
    }
    const index = JSON.parse(readFileSync(path.join(at('small'), 'model.safetensors.index.json'), 'utf8')) as {
      weight_map: Record<string, string>;
    };
    expect(Object.keys(index.weight_map).sort()).toEqual([...after.keys()].sort());
  });

  it('moves the size of inputs from norms into weights when it is smoothed', async () => {
    const options = { model: bundledModel, scheme: 'w8a8', calibration: text } as const;
    await quantizeCheckpoint({ ...options, output: at('smooth') });
    await quantizeCheckpoint({ ...options, output: at('plain'), smooth: 0 });
    const [smooth, plain] = ['smooth', 'plain'].map((name) => decompress(readTensors(at(name)))) as [Weights, Weights];
    for (const [norm, matrix] of [
      ['input_layernorm', 'self_attn.k_proj'],
      ['post_attention_layernorm', 'mlp.up_proj'],
    ]) {
      const [before, after] = [plain, smooth].map((tensors) => tensors.get(`model.layers.2.${norm}.weight`)!);
      const [dense, scaled] = [plain, smooth].map((tensors) => tensors.get(`model.layers.2.${matrix}.weight`)!);
      expect(after![0]).not.toBe(before![0]);
      // Norm times weight is what it was, but for what both quantisations round.
      const largest = magnitude(dense!);
      for (let i = 0; i < 256; ++i) {
        const restored = (scaled![i]! * after![i]!) / before![i]!;
        expect(Math.abs(restored - dense![i]!)).toBeLessThan(0.05 * largest);
      }
    }
  });
});

describe('a checkpoint that is pruned', () => {
  it('is 2:4, and the better the method, the lower its loss', async () => {
    const losses: number[] = [];
    for (const method of METHODS) {
      const { loss } = await prune(method, method, { format: 'dense' });
      const tensors = decompress(readTensors(at(method)));
      for (const [name, values] of tensors) if (name.includes('_proj')) expect(isTwoOfFour(values)).toBe(true);
      losses.push(loss!.after!);
      expect(loss!.after).toBeGreaterThan(loss!.before!);
    }
    const [magnitude, wanda, sparsegpt] = losses as [number, number, number];
    expect(wanda).toBeLessThan(magnitude);
    expect(sparsegpt).toBeLessThan(wanda);
  });

  it('holds the same weights compressed as dense', async () => {
    await prune('wanda', 'dense', { format: 'dense' });
    await prune('wanda', 'compressed');
    expect(sameWeights('compressed', 'dense')).toBe(true);
    expect(readConfig(at('dense')).quantization_config).toBeUndefined();
    expect(readConfig(at('compressed')).quantization_config!.sparsity_config).toMatchObject({
      format: 'sparse-24-bitmask',
      global_sparsity: expect.closeTo(0.435, 3),
    });
  });

  it('comes out the same when second moments are summed for a few layers at a time', async () => {
    const whole = await prune('sparsegpt', 'whole', { format: 'dense' });
    const parts = await prune('sparsegpt', 'parts', { format: 'dense', memoryBytes: whole.memoryBytes - 2 ** 22 });
    expect(whole.numPasses).toBe(1);
    expect(parts.numPasses).toBeGreaterThan(1);
    expect(parts.memoryBytes).toBeLessThan(whole.memoryBytes);
    expect(sameWeights('parts', 'whole')).toBe(true);
  });

  it.each(['dense', 'compressed'] as const)('stays 2:4 when it is quantised, stored %s', async (format) => {
    await prune('magnitude', 'pruned', { format });
    const options = { model: at('pruned'), output: at('small'), scheme: 'int8', evaluation: text } as const;
    const { numSparse, loss } = await quantizeCheckpoint(options);
    expect(numSparse).toBe(56);
    expect(Math.abs(loss!.after! - loss!.before!)).toBeLessThan(0.02);
    const [pruned, small] = ['pruned', 'small'].map((name) => decompress(readTensors(at(name))));
    for (const [name, values] of pruned!) {
      const other = small!.get(name)!;
      expect(magnitude(values, other)).toBeLessThanOrEqual(magnitude(values) / 200);
      if (name.includes('_proj')) expect(isTwoOfFour(other)).toBe(true);
    }
  });

  it('leaves alone the layers that it is to ignore', async () => {
    const { numMatrices, numSparse } = await prune('wanda', 'small', {
      ignore: ['down_proj', 'model.layers.0.mlp.up_proj'],
    });
    expect([numMatrices, numSparse]).toEqual([47, 47]);
    const name = 'model.layers.4.mlp.down_proj.weight';
    expect(readTensors(at('small')).get(name)!.data.equals(readTensors(bundledModel).get(name)!.data)).toBe(true);
  });
});

describe('a model that is shorter than usual sequences', () => {
  const prepare = (): string => {
    cpSync(bundledModel, at('short'), { recursive: true });
    const config = { ...readConfig(bundledModel), max_position_embeddings: 64 };
    writeFileSync(at('short/config.json'), JSON.stringify(config));
    return at('short');
  };

  it('has its loss measured on sequences as long as it allows', async () => {
    const { loss } = await prune('magnitude', 'small', { model: prepare() });
    expect(loss).toEqual({ numTokens: expect.any(Number), before: expect.any(Number), after: expect.any(Number) });
  });

  it('has longer ones refused', async () => {
    const run = prune('magnitude', 'small', { model: prepare(), sequenceLength: 64 });
    await expect(run).rejects.toThrow('sequenceLength must be at most 63 for this model, received 64');
    expect(entries()).toEqual(['short']);
  });
});

describe('what cannot be done', () => {
  const quantize = (options: object) =>
    quantizeCheckpoint({ model: bundledModel, output: at('small'), scheme: 'int8', ...options });

  it.each([
    ['an unknown scheme', { scheme: 'int3' }, 'scheme must be one of "int8" and "w8a8", received "int3"'],
    ['a misspelt key', { sheme: 'int8' }, 'did you mean "scheme"'],
    ['smoothing of weights alone', { smooth: 0.5 }, 'smooth must be left out with scheme "int8"'],
    ['smoothing without a text', { scheme: 'w8a8', smooth: 0.5 }, 'calibration must be the path of a text file'],
    ['a text that is missing', { calibration: '/nonexistent.txt' }, 'evaluation must be the path of a text file'],
    ['a layer that is not there', { ignore: ['q'] }, 'ignore must name linear layers'],
    ['a model that is missing', { model: '/nonexistent' }, 'model must be a folder with a config.json'],
  ])('is refused: %s', async (_, options, message) => {
    await expect(quantize(options)).rejects.toThrow(message);
    expect(entries()).toEqual([]);
  });

  it('is refused: pruning by inputs that nobody shows', async () => {
    await expect(prune('wanda', 'small', { calibration: undefined })).rejects.toThrow('calibration must be the path');
    writeFileSync(at('empty.txt'), '');
    await expect(prune('wanda', 'small', { calibration: at('empty.txt') })).rejects.toThrow(
      'at least 2 tokens, received 0',
    );
  });

  it('is refused: an output that exists, and a checkpoint that is quantised already', async () => {
    mkdirSync(at('small'));
    await expect(quantize({})).rejects.toThrow(/^output must be the path of a folder to make, but .*small exists$/);
    await quantize({ output: at('int8') });
    await expect(quantize({ model: at('int8'), output: at('twice') })).rejects.toThrow(
      'model must be a checkpoint that is not quantised',
    );
  });
});

describe('a run that is stopped', () => {
  it('by its signal rejects with the reason, and leaves nothing behind', async () => {
    const controller = new AbortController();
    const reason = new Error('enough');
    const onProgress = (): void => controller.abort(reason);
    const run = prune('sparsegpt', 'small', { onProgress, signal: controller.signal });
    await expect(run).rejects.toBe(reason);
    expect(entries()).toEqual([]);
  });

  it('while its text is read rejects with the reason, and leaves nothing behind', async () => {
    const controller = new AbortController();
    const reason = new Error('changed my mind');
    const run = prune('magnitude', 'small', { signal: controller.signal });
    controller.abort(reason);
    await expect(run).rejects.toBe(reason);
    expect(entries()).toEqual([]);
  });

  it('before it begins does nothing', async () => {
    const signal = AbortSignal.abort(new Error('never mind'));
    await expect(prune('magnitude', 'small', { signal })).rejects.toThrow('never mind');
  });
});

describe('a worker that is terminated', () => {
  it('ends its runs, and leaves nothing behind', async () => {
    mkdirSync(at('large'));
    writeSparseCheckpoint(at('large'));
    const options = { model: at('large'), output: at('small'), method: 'magnitude' };
    const script = `require(${JSON.stringify(builtPackage)}).pruneCheckpoint(${JSON.stringify(options)});`;
    const worker = new Worker(script, { eval: true });
    await eventually(() => entries().length > 1, 'the run begins');
    await worker.terminate();
    expect(entries()).toEqual(['large']);
  });
});

describe('the command line', () => {
  const start = (...args: string[]) => {
    const child = spawn(process.execPath, [PROGRAM, ...args]);
    const output = { stdout: '', stderr: '' };
    child.stdout.on('data', (chunk: Buffer) => (output.stdout += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (output.stderr += chunk.toString()));
    const ended = once(child, 'close').then(([code]) => ({ code: code as number | null, ...output }));
    return { child, ended };
  };
  const pruneLarge = () => {
    mkdirSync(at('large'), { recursive: true });
    writeSparseCheckpoint(at('large'));
    return start('prune', '--model', at('large'), '--output', at('small'), '--method', 'magnitude');
  };
  const partial = (): string | undefined => entries().find((name) => name.startsWith('small.partial-'));

  it('prunes, and says what became of bytes and loss', async () => {
    const args = ['--model', bundledModel, '--output', at('small'), '--method', 'sparsegpt', '--format', 'dense'];
    const { code, stdout, stderr } = await start('prune', ...args, '--calibration', text).ended;
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/: 56 linear layers changed\nweights: 15\.5 MiB before, 15\.5 MiB after \(100\.0 %\)\n/);
    expect(stdout).toMatch(/\nloss: \d\.\d{5} before, \d\.\d{5} after, nats a token over \d+ tokens\n$/);
  });

  it('quantises, and says so in JSON', async () => {
    const args = ['--model', bundledModel, '--output', at('small'), '--scheme', 'int8', '--ignore', 'lm_head'];
    const { code, stdout } = await start('quantize', ...args, '--json').ended;
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ numMatrices: 56, numSparse: 0, removed: [] });
  });

  it('names what is wrong in one line', async () => {
    const args = ['--model', bundledModel, '--output', at('small'), '--method', 'guess'];
    const { code, stderr } = await start('prune', ...args).ended;
    expect(code).toBe(1);
    expect(stderr).toBe('heddle: method must be one of "magnitude", "wanda" and "sparsegpt", received "guess"\n');
  });

  it('leaves nothing behind when it is interrupted', async () => {
    const { child, ended } = pruneLarge();
    await eventually(() => partial() !== undefined, 'the run begins');
    child.kill('SIGINT');
    expect(await ended).toMatchObject({ code: 1, stdout: '', stderr: 'heddle: interrupted\n' });
    expect(entries()).toEqual(['large']);
  });

  it('has no output when it is killed, and clears up the next time', async () => {
    const { child, ended } = pruneLarge();
    const begun = (): boolean => partial() !== undefined && readdirSync(at(partial()!)).length > 0;
    await eventually(begun, 'the run begins');
    child.kill('SIGKILL');
    await ended;
    const left = partial()!;
    expect(entries()).toEqual(['large', left]);
    const { code, stdout } = await pruneLarge().ended;
    expect(code).toBe(0);
    expect(stdout).toContain(`removed ${left}, which a killed run had left\n`);
    expect(entries()).toEqual(['large', 'small']);
  });
});
