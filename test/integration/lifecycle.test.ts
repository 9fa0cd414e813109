/** The engine in other people's processes: workers, exits, many engines, many times. Children run the built package. */
import { bundledModel, createEngine, itOnCpu, withEngine } from '../helpers/engine';
import { builtPackage, runScript } from '../helpers/script';

describe('the end of the process', () => {
  it('keeps the exit code when process.exit() comes in the middle of generation', async () => {
    const { code, signal, stderr } = await runScript(`
      const engine = await Engine.create(paired);
      for await (const _ of engine.generate({ tokenIds }, { ignoreEos: true })) process.exit(7);`);
    expect({ code, signal, stderr }).toEqual({ code: 7, signal: null, stderr: '' });
  });

  it('keeps the exit code when process.exit() comes while a model loads', async () => {
    const { code, signal, stderr } = await runScript(`
      Engine.create(alone).catch(() => {});
      setTimeout(() => process.exit(5), 15);`);
    expect({ code, signal, stderr }).toEqual({ code: 5, signal: null, stderr: '' });
  });

  it('does not wait for an idle engine that nobody closed', async () => {
    const { code, stdout } = await runScript(`
      const engine = await Engine.create(alone);
      const output = await engine.generate({ tokenIds }, { maxTokens: 3, ignoreEos: true }).final();
      console.log(output.outputs[0].tokenIds.length);`);
    expect({ code, stdout }).toEqual({ code: 0, stdout: '3\n' });
  });

  it('waits for requests that are under way', async () => {
    const { code, stdout } = await runScript(`
      const engine = await Engine.create(alone);
      engine.generate({ tokenIds }, { maxTokens: 100, ignoreEos: true }).final().then((o) => console.log(o.outputs[0].tokenIds.length));`);
    expect({ code, stdout }).toEqual({ code: 0, stdout: '100\n' });
  });

  it('does not wait for a stream that was forgotten', async () => {
    const { code, signal, stderr } = await runScript(`
      const engine = await Engine.create(alone);
      engine.generate({ tokenIds }, { maxTokens: 1500, ignoreEos: true });`);
    expect({ code, signal, stderr }).toEqual({ code: 0, signal: null, stderr: '' });
  });

  it('comes with the error when user code throws in the middle of a stream', async () => {
    const { code, signal, stderr } = await runScript(`
      const engine = await Engine.create(alone);
      for await (const _ of engine.generate({ tokenIds }, { ignoreEos: true })) throw new Error('user code');`);
    expect({ code, signal }).toEqual({ code: 1, signal: null });
    expect(stderr).toContain('user code');
  });
});

describe('a process that is stopped for longer than the time limit of its ranks', () => {
  it('goes on generating when it is continued', async () => {
    const { code, signal, stdout, stderr } = await runScript(`
      const { spawn } = require('node:child_process');
      const engine = await Engine.create({ ...paired, threads: 1, parallel: { ...paired.parallel, timeoutMs: 500 } });
      const stream = engine.generate({ tokenIds }, { maxTokens: 1500, ignoreEos: true, detokenize: false });
      let tokens = 0;
      for await (const delta of stream) {
        if (tokens === 0) spawn('sh', ['-c', 'kill -STOP ' + process.pid + '; sleep 1.5; kill -CONT ' + process.pid]);
        tokens += delta.tokenIds.length;
      }
      console.log(tokens);`);
    expect({ code, signal, stdout, stderr }).toEqual({ code: 0, signal: null, stdout: '1500\n', stderr: '' });
  });
});

describe('worker threads', () => {
  it('run engines of their own, and may be terminated in the middle of generation', async () => {
    const { code, signal, stdout, stderr } = await runScript(`
      const { Worker } = require('node:worker_threads');
      const source = \`
        const { parentPort } = require('node:worker_threads');
        const { Engine } = require(${JSON.stringify(builtPackage)});
        (async () => {
          const engine = await Engine.create(\${JSON.stringify({ ...alone, threads: 1 })});
          const stream = engine.generate({ tokenIds: [6, 7, 8] }, { ignoreEos: true, maxTokens: 1500 });
          for await (const delta of stream) parentPort.postMessage(delta.tokenIds.length);
        })();
      \`;
      const main = await Engine.create({ ...alone, threads: 1 });
      for (let i = 0; i < 5; i++) {
        const workers = [0, 1].map(() => new Worker(source, { eval: true }));
        await Promise.all(workers.map((w) => new Promise((resolve, reject) => { w.once('message', resolve); w.once('error', reject); })));
        const output = await main.generate({ tokenIds }, { maxTokens: 5, ignoreEos: true }).final();
        if (output.outputs[0].tokenIds.length !== 5) throw new Error('the main engine stopped');
        await Promise.all(workers.map((w) => w.terminate()));
      }
      await main.close();
      console.log('done');`);
    expect({ code, signal, stdout, stderr }).toEqual({ code: 0, signal: null, stdout: 'done\n', stderr: '' });
  }, 120_000);
});

describe('several engines', () => {
  itOnCpu('run in one process without knowing of each other', async () => {
    await withEngine({ model: bundledModel, threads: 1 }, (a) =>
      withEngine({ model: bundledModel, threads: 1, parallel: { tensorParallelSize: 2 } }, async (b) => {
        const params = { maxTokens: 20, temperature: 0 };
        const [x, y] = await Promise.all([a, b].map((e) => e.generate('She had always', params).text()));
        expect(x).toBe(y);
      }),
    );
  });

  it('one hundred times created and closed leave memory where it was', async () => {
    const cycle = async () => {
      const engine = await createEngine({
        model: bundledModel,
        threads: 1,
        kvCacheBytes: 16 * 2 ** 20,
        maxModelLen: 512,
      });
      await engine.generate({ tokenIds: [6, 7, 8] }, { maxTokens: 2, ignoreEos: true }).final();
      await engine.close();
    };
    for (let i = 0; i < 20; i++) await cycle(); // allocators and caches settle
    const before = process.memoryUsage.rss();
    for (let i = 0; i < 100; i++) await cycle();
    const grownMiB = (process.memoryUsage.rss() - before) / 2 ** 20;
    // One engine's weights alone are 16 MiB: a leak of one part in ten would show.
    expect(grownMiB).toBeLessThan(60);
  }, 240_000);
});

describe('closing', () => {
  it('ends open requests with EngineClosedError and is idempotent', async () => {
    const engine = await createEngine({ model: bundledModel });
    const final = engine.generate({ tokenIds: [6, 7] }, { ignoreEos: true }).final();
    const rejected = expect(final).rejects.toMatchObject({ code: 'ERR_ENGINE_CLOSED' });
    await Promise.all([engine.close(), engine.close()]);
    await rejected;
    await engine.close();
    expect(() => engine.generate({ tokenIds: [6] })).toThrow(expect.objectContaining({ code: 'ERR_ENGINE_CLOSED' }));
  });

  it('with drain lets accepted requests finish', async () => {
    const engine = await createEngine({ model: bundledModel });
    const final = engine.generate({ tokenIds: [6, 7] }, { ignoreEos: true, maxTokens: 50 }).final();
    await engine.close({ drain: true });
    expect((await final).outputs[0]!.tokenIds).toHaveLength(50);
  });

  it('with drain lets a request finish that nobody takes anything of', async () => {
    const engine = await createEngine({ model: bundledModel });
    const stream = engine.generate({ tokenIds: [6, 7] }, { ignoreEos: true, maxTokens: 1500 });
    await engine.close({ drain: true });
    expect((await stream.final()).outputs[0]!.tokenIds).toHaveLength(1500);
  });
});
