/** The engine above the native module, which is a fake here. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { Tokenizer as HuggingFaceTokenizer } from 'tokenizers';

import { Engine } from '../../lib';
import { TemplateWorker } from '../../lib/tokenizer/template-worker';
import type { EngineConfig, GenerationDelta, GenerationStream } from '../../types/index';
import { bundledModel } from '../helpers/engine';
import { fakeAddon, nativeError, type FakeEngine } from '../helpers/fake-addon';
import { NCCL_DEFAULTS } from '../helpers/nccl';

jest.mock('bindings', () => () => jest.requireActual<{ fakeAddon: unknown }>('../helpers/fake-addon').fakeAddon);

const engines: Engine[] = [];
const folders: string[] = [];
afterEach(async () => {
  await Promise.all(engines.splice(0).map((engine) => engine.close()));
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
  fakeAddon.nextInfo = {};
  // Jest fails a test in whose time a rejection is handled by nobody.
  await turn();
});

const turn = () => new Promise((resolve) => setImmediate(resolve));
const ids = { tokenIds: [6, 7, 8] };

async function start(config: Partial<EngineConfig> = {}): Promise<{ engine: Engine; fake: FakeEngine }> {
  const engine = await Engine.create({ model: bundledModel, ...config });
  engines.push(engine);
  return { engine, fake: fakeAddon.engines.at(-1)! };
}

/** A copy of the bundled model without some files, and with others. */
function folderWith(files: Record<string, string | null>): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'heddle-engine-'));
  folders.push(folder);
  for (const name of ['config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json']) {
    if (files[name] !== null) cpSync(path.join(bundledModel, name), path.join(folder, name));
  }
  for (const [name, content] of Object.entries(files)) {
    if (content !== null) writeFileSync(path.join(folder, name), content);
  }
  return folder;
}

async function collect(stream: GenerationStream): Promise<GenerationDelta[]> {
  const deltas: GenerationDelta[] = [];
  for await (const delta of stream) deltas.push(delta);
  return deltas;
}

describe('Engine.create', () => {
  it('gives the native side a complete configuration and the vocabulary', async () => {
    const seen: number[] = [];
    const { fake } = await start({ parallel: { tensorParallelSize: 2 }, threads: 3, onProgress: (f) => seen.push(f) });
    expect(fake.config).toEqual({
      model: bundledModel,
      device: 'auto',
      devices: new Int32Array(),
      gpuMemoryUtilization: 0.9,
      communicator: 'auto',
      nccl: {
        ...NCCL_DEFAULTS,
        environment: {},
      },
      customAllReduce: true,
      loadFormat: 'safetensors',
      packedWeights: '',
      dtype: 'auto',
      quantization: 'auto',
      sparsity: 'auto',
      provider: 'heddle',
      kvCacheDtype: 'auto',
      kvCacheBytes: 0,
      blockSize: 16,
      maxModelLen: 0,
      maxNumSeqs: 0,
      maxNumBatchedTokens: 0,
      maxNumWaiting: 4096,
      enablePrefixCaching: true,
      schedulingPolicy: 'fcfs',
      seed: 0,
      maxLogprobs: 20,
      tensorParallelSize: 2,
      threads: 3,
      timeoutMs: 60_000,
      cpuIsa: '',
      eosTokenIds: Int32Array.of(1),
    });
    expect(seen).toEqual([1]);
  });

  describe('with settings of NCCL', () => {
    afterEach(() => delete process.env['NCCL_DEBUG']);
    const nccl = { debug: 'warn', maxCtas: 4 } as const;

    it('puts those of the process into its environment, and gives the native side both kinds', async () => {
      const { fake } = await start({ parallel: { tensorParallelSize: 2, nccl } });
      expect(process.env['NCCL_DEBUG']).toBe('WARN');
      expect(fake.config.nccl).toMatchObject({ maxCtas: 4, environment: { NCCL_DEBUG: 'WARN' } });
    });

    it('leaves the environment alone with one rank', async () => {
      await start({ parallel: { nccl } });
      expect(process.env).not.toHaveProperty('NCCL_DEBUG');
    });

    it('rejects where the environment says otherwise', async () => {
      process.env['NCCL_DEBUG'] = 'INFO';
      const engine = Engine.create({ model: bundledModel, parallel: { tensorParallelSize: 2, nccl } });
      await expect(engine).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    });

    it('leaves nothing in the environment when the native side rejects', async () => {
      fakeAddon.nextError = nativeError('ERR_INSUFFICIENT_MEMORY', 'too big');
      const engine = Engine.create({ model: bundledModel, parallel: { tensorParallelSize: 2, nccl } });
      await expect(engine).rejects.toThrow('too big');
      expect(process.env).not.toHaveProperty('NCCL_DEBUG');
    });
  });

  it('rejects with typed errors that show the caller', async () => {
    fakeAddon.nextError = nativeError('ERR_INSUFFICIENT_MEMORY', 'too big');
    const theCaller = async () => Engine.create({ model: bundledModel });
    const error = await theCaller().catch((reason: unknown) => reason as Error);
    expect(error).toMatchObject({
      name: 'InsufficientMemoryError',
      code: 'ERR_INSUFFICIENT_MEMORY',
      message: 'too big',
    });
    expect((error as Error).stack).toContain('theCaller');
  });

  it.each([
    [{ 'tokenizer.json': '{' }, 'ERR_MODEL_FORMAT', 'tokenizer.json is not JSON'],
    [{ 'tokenizer_config.json': 'x' }, 'ERR_MODEL_FORMAT', 'tokenizer_config.json is not JSON'],
    [{ 'generation_config.json': '[]' }, 'ERR_MODEL_FORMAT', 'generation_config.json is broken'],
    [{ 'generation_config.json': '{"top_p": 3}' }, 'ERR_MODEL_FORMAT', 'top_p must be'],
  ])('refuses a folder with %j', async (files, code, message) => {
    const model = folderWith(files);
    await expect(Engine.create({ model })).rejects.toMatchObject({
      code,
      message: expect.stringContaining(message) as string,
    });
  });

  it('refuses a folder that is missing or a file, by its path', async () => {
    for (const model of ['/nowhere/at/all', path.join(bundledModel, 'config.json')]) {
      const message = expect.stringContaining(model) as string;
      await expect(Engine.create({ model })).rejects.toMatchObject({ code: 'ERR_MODEL_FORMAT', message });
    }
  });

  it('is the only way to an engine', () => {
    const Constructor = Engine as unknown as new () => Engine;
    expect(() => new Constructor()).toThrow(
      expect.objectContaining({
        code: 'ERR_INVALID_ARGUMENT',
        message: expect.stringContaining('Engine.create()') as string,
      }),
    );
  });

  it('may run several times at once', async () => {
    const started = await Promise.all([start(), start(), start()]);
    expect(new Set(started.map(({ engine }) => engine)).size).toBe(3);
  });

  it('works without a tokenizer, for ids only', async () => {
    const { engine, fake } = await start({ model: folderWith({ 'tokenizer.json': null }) });
    void engine.generate(ids).final();
    expect(fake.requests.size).toBe(1);
    const noTokenizer = expect.objectContaining({
      code: 'ERR_INVALID_ARGUMENT',
      message: expect.stringContaining('tokenizer.json') as string,
    });
    expect(() => engine.generate('text')).toThrow(noTokenizer);
    expect(() => engine.generate(ids, { stop: 'x' })).toThrow(noTokenizer);
    expect(() => engine.chat([{ role: 'user', content: 'hi' }])).toThrow(noTokenizer);
    expect(() => engine.decode([1])).toThrow(noTokenizer);
    await expect(engine.encode('text')).rejects.toEqual(noTokenizer);
  });
});

it('Engine.plan adds up the ranks', async () => {
  const plan = await Engine.plan({ model: bundledModel });
  const rank = { weightBytes: 1000, kvCacheBytes: 200, activationBytes: 30 };
  expect(plan).toEqual({
    ranks: [
      { rank: 0, ...rank },
      { rank: 1, ...rank },
    ],
    totalBytes: 2460,
    availableBytes: 2459,
    fits: false,
    kvCacheTokens: 5000,
    kvCacheBytesPerToken: 8,
    maxConcurrency: 2,
    maxModelLen: 2048,
  });
});

describe('generate', () => {
  it('sends ids at once, with the defaults of the checkpoint', async () => {
    const { engine, fake } = await start();
    engine.generate(ids, { maxTokens: 5, minTokens: 2, outputKind: 'final_only' }, { cacheSalt: 'salt' });
    expect(fake.requests.get(1)).toMatchObject({
      promptTokenIds: Int32Array.of(6, 7, 8),
      params: {
        temperature: expect.closeTo(0.8) as number,
        topP: 0.95,
        maxTokens: 5,
        minTokens: 2,
        finalOnly: true,
        badWords: [],
        seed: null,
      },
      priority: 0,
      cacheSalt: 'salt',
    });
  });

  it('caps maxTokens, and minTokens with it, at the room left', async () => {
    const { engine, fake } = await start({ maxModelLen: 10 });
    engine.generate(ids);
    engine.generate(ids, { maxTokens: 2 ** 53 - 1, minTokens: 100 });
    expect([...fake.requests.values()].map(({ params }) => [params.minTokens, params.maxTokens])).toEqual([[0, 7], [7, 7]]); // prettier-ignore
  });

  it("caps the checkpoint's max_new_tokens the same way", async () => {
    const model = folderWith({ 'generation_config.json': '{"max_new_tokens": 5}' });
    for (const [maxModelLen, maxTokens] of [
      [10, 5],
      [6, 3],
    ] as const) {
      const { engine, fake } = await start({ model, maxModelLen });
      engine.generate(ids);
      expect(fake.requests.get(1)!.params.maxTokens).toBe(maxTokens);
    }
  });

  it('tokenises text, and streams what comes back', async () => {
    const { engine, fake } = await start();
    const stream = engine.generate('She had', { badWords: ['river'] });
    const collected = collect(stream);
    await fake.arrived(1);
    const request = fake.requests.get(1)!;
    expect(request.promptTokenIds).toEqual(await engine.encode('She had'));
    expect(request.promptTokenIds[0]).toBe(0);
    expect(request.params.badWords[0]).toEqual(await engine.encode('river', { addSpecialTokens: false }));
    fake.token(1, 'always');
    fake.emit(1, { finishReason: 'stop' });
    expect((await collected).map(({ text }) => text)).toEqual(['always', '']);
    expect((await stream.final()).promptTokenIds).toEqual(request.promptTokenIds);
  });

  it('labels requests, and knows them by the native id', async () => {
    const { engine, fake } = await start();
    const streams = [
      engine.generate(ids),
      engine.generate(ids, {}, { requestId: 'mine' }),
      engine.generate(ids, {}, { requestId: 'mine' }),
    ];
    expect(streams.map(({ requestId }) => requestId)).toEqual(['request-1', 'mine', 'mine']);
    fake.token(2, 'second', { finishReason: 'stop' });
    expect(await streams[1]!.text()).toBe('second');
    streams[2]!.abort();
    expect(fake.aborted).toEqual([3]);
  });

  it('throws at once what can be seen at once', async () => {
    const { engine, fake } = await start();
    const invalid = expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' });
    expect(() => engine.generate(5 as never)).toThrow(invalid);
    expect(() => engine.generate({ tokenIds: [4096] })).toThrow(invalid);
    expect(() => engine.generate('a', { temperature: NaN })).toThrow(invalid);
    expect(() => engine.generate('a', null as never)).toThrow(invalid);
    expect(() => engine.generate('a', {}, { priority: 1 })).toThrow(invalid);
    await turn();
    expect(fake.requests.size).toBe(0);
  });

  it('rejects the stream for what shows later, with the stack of the caller', async () => {
    const { engine } = await start({ maxModelLen: 20 });
    const theCaller = () => engine.generate('a b c d e f g h i j k l m n o p q r s t u v w x y z');
    const error = await theCaller()
      .final()
      .catch((reason: unknown) => reason as Error);
    expect(error).toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
      message: expect.stringMatching(/^prompt must have at most 19 tokens, received \d+$/) as string,
    });
    expect((error as Error).stack).toContain('theCaller');
    await expect(collect(engine.generate('x'.repeat(10_000_000)))).rejects.toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
    });
  });

  it('rejects a text whose tokens the model lacks, or that has none', async () => {
    fakeAddon.nextInfo = { vocabSize: 6 };
    const { engine } = await start();
    await expect(engine.generate('She').final()).rejects.toThrow("which the model's vocabulary of 6 lacks");
    const bare = folderWith({ 'tokenizer.json': JSON.stringify({ ...tokenizerJson(), post_processor: null }) });
    const { engine: other } = await start({ model: bare });
    await expect(other.generate('').final()).rejects.toThrow('prompt must have at least 1 token');
  });

  it('rejects with QueueFullError when the native queue is full, and when too many texts are being read', async () => {
    const { engine, fake } = await start({ maxNumWaiting: 3 });
    fake.addRequestError = nativeError('ERR_QUEUE_FULL', '3 requests wait already');
    await expect(engine.generate(ids).final()).rejects.toMatchObject({ name: 'QueueFullError' });
    fake.addRequestError = null;
    const results = Array.from({ length: 10 }, () => engine.generate('text'));
    for (const stream of results.slice(0, 3)) void stream.final();
    const refused = await Promise.allSettled(results.slice(3).map((stream) => stream.final()));
    expect(refused.map((result) => (result as PromiseRejectedResult).reason as Error)).toEqual(
      Array.from({ length: 7 }, () => expect.objectContaining({ code: 'ERR_QUEUE_FULL' }) as unknown),
    );
    await fake.arrived(3);
  });

  it('never sends a request that was aborted while its text was read', async () => {
    const { engine, fake } = await start();
    const controller = new AbortController();
    const bySignal = engine.generate('She had', {}, { signal: controller.signal });
    const byAbort = engine.generate('She had');
    const aborted = engine.generate(ids, {}, { signal: AbortSignal.abort() });
    controller.abort();
    byAbort.abort();
    await expect(bySignal.final()).rejects.toMatchObject({ name: 'AbortError' });
    await expect(aborted.final()).rejects.toMatchObject({ name: 'AbortError' });
    expect((await byAbort.final()).outputs[0]!.finishReason).toBe('abort');
    await engine.encode('She had');
    await turn();
    expect(fake.requests.size).toBe(0);
  });

  it('reads no text of a request that is over before its turn, and lets others wait in its place', async () => {
    const { engine, fake } = await start({ maxNumWaiting: 3 });
    const read = jest.spyOn(HuggingFaceTokenizer.prototype, 'encode');
    const rendered = jest.spyOn(TemplateWorker.prototype, 'render');
    for (let i = 0; i < 50; i++) {
      engine.generate('She had', { badWords: ['river', 'hill'] }).abort();
      engine.chat([{ role: 'user', content: 'hi' }]).abort();
    }
    void engine.generate('She had').final();
    await fake.arrived(1);
    expect(read.mock.calls.length).toBeLessThan(5);
    expect(rendered).toHaveBeenCalledTimes(1);
    read.mockRestore();
    rendered.mockRestore();
  });

  it('counts requests whose banned words are being read among those that wait', async () => {
    const { engine } = await start({ maxNumWaiting: 3 });
    const streams = Array.from({ length: 4 }, () => engine.generate(ids, { badWords: ['river'] }));
    await expect(streams[3]!.final()).rejects.toMatchObject({ code: 'ERR_QUEUE_FULL' });
  });

  it('acknowledges what is pulled', async () => {
    const { engine, fake } = await start();
    const iterator = engine.generate(ids)[Symbol.asyncIterator]();
    fake.token(1, 'a');
    fake.token(1, 'b');
    expect(fake.acknowledged.get(1)).toBeUndefined();
    await iterator.next();
    expect(fake.acknowledged.get(1)).toBe(1);
    await iterator.return!();
    expect(fake.aborted).toEqual([1]);
  });

  it('measures from the request to its first step', async () => {
    const { engine, fake } = await start();
    const final = engine.generate(ids).final();
    await new Promise((resolve) => setTimeout(resolve, 60));
    const step = { startedRequestIds: [1], stepSeconds: Float64Array.of(0.02), stepTokens: Int32Array.of(3) };
    fake.step({
      ...step,
      deltas: [{ requestId: 1, index: 0, tokenIds: Int32Array.of(5), text: 'a', logprob: 0, finishReason: 'stop' }],
    });
    const { queueMs, timeToFirstTokenMs, totalMs } = (await final).timing;
    expect(timeToFirstTokenMs - queueMs).toBeCloseTo(20, 3);
    expect(queueMs).toBeGreaterThan(20);
    expect(totalMs).toBe(timeToFirstTokenMs);
  });
});

describe('chat', () => {
  it('goes through the template, and adds no special tokens to it', async () => {
    const { engine, fake } = await start();
    void engine.chat([{ role: 'user', content: 'What does "river" mean?' }]).final();
    await fake.arrived(1);
    const text = '<|bos|><|user|>\nWhat does "river" mean?<|end|>\n<|assistant|>\n';
    const expected = await engine.encode(text, { addSpecialTokens: false });
    expect([...fake.requests.get(1)!.promptTokenIds]).toEqual([...expected]);
    expect([...expected.slice(0, 3)]).toEqual([0, 4, 204]);
  });

  it('checks its arguments at once', async () => {
    const { engine } = await start();
    const invalid = expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' });
    expect(() => engine.chat([])).toThrow(invalid);
    expect(() => engine.chat([{ role: 'user', content: 'hi' }], { topP: 2 })).toThrow(invalid);
    expect(() => engine.chat([{ role: 'user', content: 'hi' }], {}, { continueFinalMessage: 1 as never })).toThrow(
      invalid,
    );
  });

  it('needs a template', async () => {
    const { engine } = await start({ model: folderWith({ 'tokenizer_config.json': '{}' }) });
    expect(() => engine.chat([{ role: 'user', content: 'hi' }])).toThrow('chat() needs a chat template');
  });

  it('takes its template from chat_template.jinja first', async () => {
    const { engine, fake } = await start({ model: folderWith({ 'chat_template.jinja': 'river' }) });
    void engine.chat([{ role: 'user', content: 'hi' }]).final();
    await fake.arrived(1);
    expect(fake.requests.get(1)!.promptTokenIds).toEqual(await engine.encode('river', { addSpecialTokens: false }));
  });

  it('that is closed while it renders ends with EngineClosedError', async () => {
    const { engine } = await start();
    const rejected = expect(engine.chat([{ role: 'user', content: 'hi' }]).final()).rejects.toMatchObject({
      code: 'ERR_ENGINE_CLOSED',
    });
    await engine.close();
    await rejected;
  });
});

describe('encode and decode', () => {
  it('are each other', async () => {
    const { engine } = await start();
    const encoded = await engine.encode('naïve 😀');
    expect(encoded[0]).toBe(0);
    expect(engine.decode(encoded)).toBe('naïve 😀');
    expect(engine.decode([...encoded], { skipSpecialTokens: false })).toBe('<|bos|>naïve 😀');
    expect(engine.decode([])).toBe('');
  });

  it('check their arguments', async () => {
    const { engine } = await start();
    await expect(engine.encode(5 as never)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    await expect(engine.encode('\ud800')).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    expect(() => engine.decode([4096])).toThrow('tokenIds[0] must be an integer from 0 to 4095, received 4096');
    expect(() => engine.decode('ids' as never)).toThrow('tokenIds must be an array of token ids, received "ids"');
  });
});

describe('the life of the process', () => {
  it('is not kept by a request that waits for its consumer', async () => {
    const { engine, fake } = await start();
    const stream = engine.generate(ids);
    fake.emit(1, { tokenIds: new Int32Array(1025) });
    expect(fake.keepAlive).toEqual([true, false]);
    void stream.final();
    expect(fake.keepAlive).toEqual([true, false, true]);
  });

  it('is kept by open requests only', async () => {
    const { engine, fake } = await start();
    expect(fake.keepAlive).toEqual([]);
    const streams = [engine.generate(ids), engine.generate('text')];
    expect(fake.keepAlive).toEqual([true]);
    await fake.arrived(2);
    for (const id of [1, 2]) fake.emit(id, { finishReason: 'stop' });
    await Promise.all(streams.map((stream) => stream.final()));
    expect(fake.keepAlive).toEqual([true, false]);
  });
});

describe('a failure of the engine', () => {
  it('rejects what is open with its cause, and every later request with the first failure', async () => {
    const { engine, fake } = await start();
    const theCaller = () => engine.generate(ids);
    const final = theCaller().final();
    const reading = engine.generate('text').final();
    const loop = collect(engine.generate(ids));
    fake.token(2, 'seen');
    fake.fail('ERR_RANK_FAILED', 'rank 1 died');
    const failed = { name: 'RankFailedError', code: 'ERR_RANK_FAILED', message: 'rank 1 died' };
    for (const promise of [final, reading, loop]) await expect(promise).rejects.toMatchObject(failed);
    expect(((await final.catch((reason: unknown) => reason)) as Error).stack).toContain('theCaller');
    await expect(loop).rejects.toMatchObject({ output: { outputs: [{ text: 'seen', finishReason: 'error' }] } });
    expect(() => engine.generate(ids)).toThrow(
      expect.objectContaining({ code: 'ERR_ENGINE_FAILED', cause: expect.objectContaining(failed) as unknown }),
    );
    expect(engine.health().status).toBe('failed');
    expect(fake.keepAlive.at(-1)).toBe(false);
    await engine.close();
    expect(engine.health().status).toBe('closed');
  });

  it('of an internal kind is an EngineFailedError', async () => {
    const { engine, fake } = await start();
    const final = engine.generate(ids).final();
    fake.fail('ERR_INTERNAL', 'check failed');
    await expect(final).rejects.toMatchObject({ name: 'EngineFailedError', message: 'check failed' });
  });

  it('that shows as output nobody can take in is one, too, and throws nothing into the native side', async () => {
    const { engine, fake } = await start();
    const final = engine.generate(ids).final();
    expect(() => fake.step({ deltas: null as never })).not.toThrow();
    await expect(final).rejects.toMatchObject({ code: 'ERR_ENGINE_FAILED' });
  });

  it.each([
    ['output nobody can take in', { deltas: null as never }],
    ['output that was lost', { failure: { code: 'ERR_INTERNAL', message: 'results could not be handed over' } }],
  ])('that is %s leaves the native side nothing to go on with', async (_, step) => {
    const { engine, fake } = await start();
    const finals = [ids, ids, ids].map((prompt) => engine.generate(prompt).final());
    fake.emit(2, { finishReason: 'stop' });
    fake.step(step);
    for (const i of [0, 2]) await expect(finals[i]).rejects.toMatchObject({ code: 'ERR_ENGINE_FAILED' });
    expect(fake.aborted).toEqual([1, 3]);
    await turn();
    expect([...fake.open]).toEqual([]);
  });
});

describe('health', () => {
  it('is idle, ok or stalled by the age of the last step, not by that of the request', async () => {
    const { engine, fake } = await start({ parallel: { timeoutMs: 100 } });
    fake.statsOverrides = { lastStepAgeMs: 1e6 };
    expect(engine.health()).toEqual({ status: 'idle', lastStepAgeMs: 1e6, numRunning: 0, numWaiting: 0 });
    const stream = engine.generate(ids);
    expect(engine.health().status).toBe('ok');
    await new Promise((resolve) => setTimeout(resolve, 130));
    expect(engine.health().status).toBe('stalled');
    fake.statsOverrides = { lastStepAgeMs: 3 };
    expect(engine.health().status).toBe('ok');
    stream.abort();
    await stream.final();
    expect(engine.health().status).toBe('idle');
  });

  it('is not stalled by a consumer that does not come', async () => {
    const { engine, fake } = await start({ parallel: { timeoutMs: 100 } });
    fake.statsOverrides = { lastStepAgeMs: 1e6 };
    const iterator = engine.generate(ids)[Symbol.asyncIterator]();
    fake.emit(1, { tokenIds: new Int32Array(1025) });
    await new Promise((resolve) => setTimeout(resolve, 130));
    expect(engine.health().status).toBe('idle');
    await iterator.next();
    expect(engine.health().status).toBe('ok');
  });
});

describe('close', () => {
  const closed = expect.objectContaining({ code: 'ERR_ENGINE_CLOSED' });

  it('ends open requests, those whose text is being read included', async () => {
    const { engine, fake } = await start();
    const promises = [engine.generate(ids).final(), engine.generate('text').final(), collect(engine.generate(ids))];
    const rejected = Promise.all(promises.map((promise) => expect(promise).rejects.toEqual(closed)));
    await engine.close();
    await rejected;
    await turn();
    expect(fake.requests.size).toBe(2);
    expect(fake.numCloses).toBe(1);
  });

  it('may be called twice, at once, and through asyncDispose', async () => {
    const { engine, fake } = await start();
    await Promise.all([engine.close(), engine.close({ drain: true }), engine[Symbol.asyncDispose]()]);
    await engine.close();
    expect(fake.numCloses).toBe(1);
  });

  it('refuses everything afterwards, but health and metrics', async () => {
    const { engine } = await start();
    await engine.close();
    expect(() => engine.generate(ids)).toThrow(closed);
    expect(() => engine.chat([{ role: 'user', content: 'hi' }])).toThrow(closed);
    expect(() => engine.decode([1])).toThrow(closed);
    expect(() => engine.stats()).toThrow(closed);
    await expect(engine.encode('a')).rejects.toEqual(closed);
    expect(engine.health().status).toBe('closed');
    expect(await engine.metrics.metrics()).toContain('vllm:num_preemptions_total');
  });

  it('with drain refuses new requests and lets accepted ones run to their end', async () => {
    const { engine, fake } = await start();
    const finals = [engine.generate(ids).final(), engine.generate('text').final()];
    let isClosed = false;
    const closing = engine.close({ drain: true }).then(() => (isClosed = true));
    expect(() => engine.generate(ids)).toThrow(closed);
    await fake.arrived(2);
    await turn();
    expect(isClosed).toBe(false);
    for (const id of [1, 2]) fake.token(id, 'a', { finishReason: 'stop' });
    expect((await Promise.all(finals)).map(({ outputs }) => outputs[0]!.text)).toEqual(['a', 'a']);
    await closing;
  });

  it('with drain takes what comes for a stream that nobody iterates', async () => {
    const { engine, fake } = await start();
    const stream = engine.generate(ids);
    fake.emit(1, { tokenIds: new Int32Array(2000) });
    const closing = engine.close({ drain: true });
    expect(fake.acknowledged.get(1)).toBe(2000);
    fake.emit(1, { tokenIds: new Int32Array(30), finishReason: 'stop' });
    await closing;
    expect((await stream.final()).outputs[0]!.tokenIds).toHaveLength(2030);
  });

  it('with drain ends the rest after timeoutMs', async () => {
    const { engine } = await start();
    const rejected = expect(engine.generate(ids).final()).rejects.toEqual(closed);
    await engine.close({ drain: true, timeoutMs: 20 });
    await rejected;
  });

  it('without drain hurries one that drains', async () => {
    const { engine } = await start();
    const rejected = expect(engine.generate(ids).final()).rejects.toEqual(closed);
    const draining = engine.close({ drain: true });
    await engine.close();
    await Promise.all([draining, rejected]);
  });

  it('checks its options', async () => {
    const { engine } = await start();
    await expect(engine.close({ drain: 1 as never })).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    expect(engine.health().status).toBe('idle');
  });
});

it('figures of the engine are public', async () => {
  const { engine, fake } = await start();
  fake.statsOverrides = { numRunning: 2, numWaiting: 1 };
  expect(engine.stats()).toEqual({
    numRunning: 2,
    numWaiting: 1,
    numFreeBlocks: 75,
    numTotalBlocks: 100,
    kvCacheUsage: 0.25,
    prefixCacheQueries: 40,
    prefixCacheHits: 16,
    numPreemptions: 3,
    promptTokens: 11,
    generatedTokens: 22,
    steps: 0,
    stepSeconds: 0,
    ranks: [],
  });
});

function tokenizerJson(): Record<string, unknown> {
  return JSON.parse(readFileSync(path.join(bundledModel, 'tokenizer.json'), 'utf8')) as Record<string, unknown>;
}
