/** `packedWeightCache`: what the first engine leaves in a folder, and when later ones use it. */
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import type { EngineConfig } from '../../types/index';
import { bundledModel, fingerprint, withEngine } from '../helpers/engine';
import { describeWithShared } from '../helpers/shared-data';

const SHARD = 'model-00002-of-00003.safetensors';

let root: string;
let cache: string;
beforeEach(() => {
  root = mkdtempSync(path.join(tmpdir(), 'heddle-packed-'));
  cache = path.join(root, 'cache');
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

/** Starts an engine, and says whether each rank packed nothing, and every bit of what it computes. */
async function start(config: Partial<EngineConfig> = {}): Promise<{ hits: boolean[]; bits: string }> {
  const base = { model: bundledModel, threads: 1, maxLogprobs: -1, packedWeightCache: cache };
  return withEngine({ ...base, ...config }, async (engine) => {
    const tokenIds = Array.from({ length: 30 }, (_, i) => 6 + i);
    const params = { maxTokens: 4, temperature: 0, logprobs: -1, promptLogprobs: -1, ignoreEos: true };
    const output = await engine.generate({ tokenIds }, { ...params, detokenize: false }).final();
    return { hits: engine.stats().ranks.map((r) => r.weightsFromCache), bits: fingerprint(output) };
  });
}

const without = { packedWeightCache: undefined };
const files = () => readdirSync(cache).sort();
const onlyFile = () => path.join(cache, files()[0]!);

describe.each([1, 2, 4])('with tp %i', (tensorParallelSize) => {
  const parallel = { tensorParallelSize };

  it('the first start packs and the second does not, with the same bits as without a cache', async () => {
    const { bits } = await start({ parallel, ...without });
    const all = (hit: boolean) => new Array<boolean>(tensorParallelSize).fill(hit);
    expect(await start({ parallel })).toEqual({ hits: all(false), bits });
    expect(files()).toHaveLength(tensorParallelSize);
    const written = files().map((file) => statSync(path.join(cache, file)).mtimeMs);
    expect(await start({ parallel })).toEqual({ hits: all(true), bits });
    expect(files().map((file) => statSync(path.join(cache, file)).mtimeMs)).toEqual(written);
  });

  describeWithShared('weights with biases and an embedding of their own', 'goldens', (goldens) => {
    it.each(['qwen2', 'phi3', 'gemma3'])('(%s) give the same bits from the cache', async (name) => {
      const model = path.join(goldens, name);
      const { bits } = await start({ model, parallel, ...without });
      await start({ model, parallel });
      const { hits, bits: cached } = await start({ model, parallel });
      expect(hits).not.toContain(false);
      expect(cached).toBe(bits);
    });
  });
});

it('progress reaches 1 with packed weights too', async () => {
  await start();
  const seen: number[] = [];
  expect((await start({ onProgress: (fraction) => seen.push(fraction) })).hits).toEqual([true]);
  await new Promise((resolve) => setImmediate(resolve));
  expect(seen.at(-1)).toBe(1);
  expect(seen).toEqual([...seen].sort((a, b) => a - b));
});

it('keeps what differs in dtype or number of ranks apart, in one folder', async () => {
  const configs = [{}, { dtype: 'float32' as const }, { parallel: { tensorParallelSize: 2 as const } }];
  for (const config of configs) expect((await start(config)).hits).not.toContain(true);
  for (const config of configs) expect((await start(config)).hits).not.toContain(false);
  expect(files()).toHaveLength(4);
});

it('may lie in the model folder itself', async () => {
  const model = path.join(root, 'model');
  cpSync(bundledModel, model, { recursive: true });
  expect((await start({ model, packedWeightCache: model })).hits).toEqual([false]);
  expect((await start({ model, packedWeightCache: model })).hits).toEqual([true]);
});

describe('a checkpoint that changed', () => {
  let model: string;
  beforeEach(async () => {
    model = path.join(root, 'model');
    cpSync(bundledModel, model, { recursive: true, preserveTimestamps: true });
    expect((await start({ model })).hits).toEqual([false]);
    expect((await start({ model })).hits).toEqual([true]);
  });

  /** Changes one byte of a shard. */
  const change = (keepTime: boolean) => {
    const file = path.join(model, SHARD);
    const { atime, mtime } = statSync(file);
    const bytes = readFileSync(file);
    const position = 4 * 2 ** 20 + 100_000;
    bytes[position] = bytes[position]! ^ 1;
    writeFileSync(file, bytes);
    if (keepTime) utimesSync(file, atime, mtime);
  };

  it.each([
    ['a byte and its time', false],
    ['a byte but not its time', true],
  ])('in %s is packed again', async (_, keepTime) => {
    const before = await start({ model });
    // A time that utimes can restore to the nanosecond.
    if (keepTime) {
      utimesSync(path.join(model, SHARD), 1e9, 1e9);
      await start({ model });
    }
    change(keepTime);
    const { bits } = await start({ model, ...without });
    expect(bits).not.toBe(before.bits);
    expect(await start({ model })).toEqual({ hits: [false], bits });
    expect(await start({ model })).toEqual({ hits: [true], bits });
  });

  it('while an engine starts leaves no file behind', async () => {
    rmSync(cache, { recursive: true });
    let touched = false;
    const onProgress = () => {
      if (!touched) utimesSync(path.join(model, SHARD), 1, 1);
      touched = true;
    };
    const { hits } = await start({ model, onProgress });
    expect(touched).toBe(true);
    expect(hits).toEqual([false]);
    expect(files()).toEqual([]);
  });

  it('in its config.json alone is packed again', async () => {
    const config = JSON.parse(readFileSync(path.join(model, 'config.json'), 'utf8')) as object;
    writeFileSync(path.join(model, 'config.json'), JSON.stringify({ ...config, rms_norm_eps: 1e-4 }));
    expect((await start({ model })).hits).toEqual([false]);
  });

  it('to one that cannot be loaded is refused, and nothing is written', async () => {
    const before = files();
    truncateSync(path.join(model, SHARD), 1000);
    await expect(start({ model })).rejects.toMatchObject({ code: 'ERR_MODEL_FORMAT' });
    rmSync(path.join(model, SHARD));
    await expect(start({ model })).rejects.toMatchObject({ code: 'ERR_MODEL_FORMAT' });
    expect(files()).toEqual(before);
  });
});

describe('a file in the cache', () => {
  const DAMAGES: [string, () => void][] = [
    ['cut', () => truncateSync(onlyFile(), 100_000)],
    ['empty', () => truncateSync(onlyFile(), 0)],
    ['of zeros', () => writeFileSync(onlyFile(), Buffer.alloc(100_000))],
    ['something else', () => writeFileSync(onlyFile(), 'a poem')],
    ['of another version', () => edit('in layout ', 'in layout 9')],
    ['of another form', () => edit('bfloat16 [4096, 256]', 'bfloat16 [4096, 255]')],
    ['a checkpoint', () => cpSync(path.join(bundledModel, SHARD), onlyFile())],
  ];
  /** Replaces text of the header by text of the same length: what follows is cut off. */
  const edit = (from: string, to: string) => {
    const bytes = readFileSync(onlyFile());
    const at = bytes.indexOf(from);
    expect(at).toBeGreaterThan(0);
    bytes.write(to, at);
    writeFileSync(onlyFile(), bytes);
  };

  it.each(DAMAGES)('that is %s is replaced, and the engine starts right', async (_, damage) => {
    const { bits } = await start();
    damage();
    expect(await start()).toEqual({ hits: [false], bits });
    expect(await start()).toEqual({ hits: [true], bits });
    expect(files()).toHaveLength(1);
  });

  it("that is another checkpoint's, under a wrong name, is replaced", async () => {
    const model = path.join(root, 'model');
    cpSync(bundledModel, model, { recursive: true });
    await start();
    const [mine] = files();
    await start({ model });
    const other = files().find((file) => file !== mine)!;
    renameSync(path.join(cache, other), path.join(cache, mine!));
    expect((await start()).hits).toEqual([false]);
    expect((await start()).hits).toEqual([true]);
  });
});

describe('two engines at the same time', () => {
  it('that find nothing both start right, and leave one whole file', async () => {
    const { bits } = await start(without);
    const results = await Promise.all([start(), start()]);
    expect(results.map((r) => r.bits)).toEqual([bits, bits]);
    expect(files()).toHaveLength(1);
    expect(await start()).toEqual({ hits: [true], bits });
  });
});

describe('the folder', () => {
  it('is made, for its owner alone', async () => {
    await start();
    expect(statSync(cache).mode & 0o777).toBe(0o700);
  });

  it.each([
    ['a file', () => path.join(root, 'file')],
    ['below a file', () => path.join(root, 'file', 'cache')],
    ['where none can be made', () => '/proc/cache'],
    ['below a folder that is not there', () => path.join(root, 'none', 'cache')],
  ])('is refused when it is %s', async (_, folder) => {
    writeFileSync(path.join(root, 'file'), '');
    cache = folder();
    await expect(start()).rejects.toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
      message: `packedWeightCache must be a folder, or where one can be made, received ${JSON.stringify(cache)}`,
    });
  });

  it('that takes no files is no obstacle', async () => {
    const { bits } = await start(without);
    expect(await start({ packedWeightCache: '/proc' })).toEqual({ hits: [false], bits });
    expect(await start({ packedWeightCache: '/proc' })).toEqual({ hits: [false], bits });
  });

  it('where a folder has the place of the file is no obstacle', async () => {
    const { bits } = await start();
    const file = onlyFile();
    rmSync(file);
    mkdirSync(file);
    expect(await start()).toEqual({ hits: [false], bits });
    expect(files()).toEqual([path.basename(file)]);
  });

  it('is not made for a model that is not there', async () => {
    await expect(start({ model: path.join(root, 'none') })).rejects.toMatchObject({ code: 'ERR_MODEL_FORMAT' });
    expect(existsSync(cache)).toBe(false);
  });
});
