import path from 'node:path';

import { resolveEngineConfig } from '../../lib/config/engine-config';
import { NCCL_DEFAULTS } from '../helpers/nccl';

const resolve = (config: object) => resolveEngineConfig({ model: 'some/folder', ...config });

describe('EngineConfig', () => {
  it('has the documented defaults', () => {
    expect(resolve({})).toEqual({
      model: path.resolve('some/folder'),
      device: 'auto',
      devices: new Int32Array(),
      gpuMemoryUtilization: 0.9,
      communicator: 'auto',
      nccl: {
        communicator: NCCL_DEFAULTS,
        variables: [],
      },
      customAllReduce: true,
      loadFormat: 'safetensors',
      packedWeightCache: null,
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
      tensorParallelSize: 1,
      threads: 0,
      timeoutMs: 60_000,
      cpuIsa: '',
      onProgress: null,
    });
  });

  it('is frozen', () => expect(Object.isFrozen(resolve({}))).toBe(true));

  it('refuses maxNumBatchedTokens below maxNumSeqs', () => {
    expect(() => resolve({ maxNumSeqs: 100, maxNumBatchedTokens: 99 })).toThrow(
      'maxNumBatchedTokens must be at least maxNumSeqs (100), received 99',
    );
  });

  it('accepts an int8 KV cache whatever the dtype', () => {
    for (const dtype of ['auto', 'float32', 'bfloat16', 'float16'] as const) {
      expect(resolve({ dtype, kvCacheDtype: 'int8' })).toMatchObject({ dtype, kvCacheDtype: 'int8' });
    }
  });

  it('makes packedWeightCache absolute, and refuses it where there is no checkpoint to keep', () => {
    expect(resolve({ packedWeightCache: 'kept' }).packedWeightCache).toBe(path.resolve('kept'));
    expect(() => resolve({ packedWeightCache: '/kept', loadFormat: 'dummy' })).toThrow(
      'packedWeightCache must be left out with loadFormat "dummy", received "/kept"',
    );
  });

  it('accepts every value that exists', () => {
    const parallel = {
      tensorParallelSize: 4,
      pipelineParallelSize: 1,
      dataParallelSize: 1,
      enableExpertParallel: false,
    };
    const given = {
      device: 'cuda',
      gpuMemoryUtilization: 1,
      quantization: 'llm-int8',
      sparsity: '2:4',
      isolation: 'thread',
      dtype: 'bfloat16',
      kvCacheDtype: 'float16',
    };
    const config = resolve({
      ...given,
      parallel: {
        ...parallel,
        devices: [0, 0, 1, 1],
        communicator: 'nccl',
        customAllReduce: false,
        collectiveDtype: 'native',
        timeoutMs: 100,
      },
    });
    expect(config).toMatchObject({ dtype: 'bfloat16', kvCacheDtype: 'float16', tensorParallelSize: 4, timeoutMs: 100 });
    expect(config).toMatchObject({ device: 'cuda', devices: Int32Array.of(0, 0, 1, 1), communicator: 'nccl' });
    expect(config).toMatchObject({ customAllReduce: false });
  });

  it.each([
    [{ isolation: 'process' }, 'isolation "process"'],
    [{ parallel: { pipelineParallelSize: 2 } }, 'parallel.pipelineParallelSize above 1'],
    [{ parallel: { dataParallelSize: 2 } }, 'parallel.dataParallelSize above 1'],
    [{ parallel: { enableExpertParallel: true } }, 'parallel.enableExpertParallel'],
    [{ parallel: { communicator: 'gloo' } }, 'parallel.communicator "gloo"'],
    [{ parallel: { collectiveDtype: 'int8' } }, 'parallel.collectiveDtype "int8"'],
  ])('refuses %j for now', (config, what) => {
    expect(() => resolve(config)).toThrow(`${what} is not available yet in this version`);
  });

  it.each([{}, { quantization: 'auto' }, { device: 'cuda', quantization: 'llm-int8', sparsity: 'none' }])(
    "lets bitsandbytes' kernels compute what may be LLM.int8: %j",
    (config) => expect(resolve({ ...config, provider: 'bitsandbytes' }).provider).toBe('bitsandbytes'),
  );

  it.each([
    [{ device: 'cpu', quantization: 'llm-int8' }, 'on device "cpu"'],
    [{ quantization: 'w8a8' }, 'with quantization "w8a8"'],
    [{ quantization: 'none' }, 'with quantization "none"'],
    [{ quantization: 'llm-int8', dtype: 'float32' }, 'with dtype "float32"'],
    [{ quantization: 'llm-int8', sparsity: '2:4' }, 'with sparsity "2:4"'],
  ])("refuses bitsandbytes' kernels beside %j", (config, where) => {
    const message = `provider must be "heddle" ${where}, received "bitsandbytes"`;
    expect(() => resolve({ ...config, provider: 'bitsandbytes' })).toThrow(message);
    expect(resolve({ ...config, provider: 'heddle' }).provider).toBe('heddle');
  });

  it.each([
    [{ model: '' }, 'model'],
    [{ provider: 'cutlass' }, 'provider'],
    [{ model: 7 }, 'model'],
    [{ model: 'a\0b' }, 'model'],
    [{ model: undefined }, 'model'],
    [{ device: 'gpu' }, 'device'],
    [{ dtype: 'bf16' }, 'dtype'],
    [{ kvCacheDtype: 'int4' }, 'kvCacheDtype'],
    [{ maxModelLen: 1 }, 'maxModelLen'],
    [{ maxModelLen: NaN }, 'maxModelLen'],
    [{ maxModelLen: '2048' }, 'maxModelLen'],
    [{ maxNumSeqs: 0 }, 'maxNumSeqs'],
    [{ maxNumSeqs: 4097 }, 'maxNumSeqs'],
    [{ maxNumBatchedTokens: -1 }, 'maxNumBatchedTokens'],
    [{ maxNumWaiting: 0 }, 'maxNumWaiting'],
    [{ kvCacheBytes: 0.5 }, 'kvCacheBytes'],
    [{ blockSize: 17 }, 'blockSize'],
    [{ seed: 2 ** 53 }, 'seed'],
    [{ seed: -1 }, 'seed'],
    [{ maxLogprobs: -2 }, 'maxLogprobs'],
    [{ maxLogprobs: 1.5 }, 'maxLogprobs'],
    [{ threads: 257 }, 'threads'],
    [{ enablePrefixCaching: 'yes' }, 'enablePrefixCaching'],
    [{ schedulingPolicy: 'lifo' }, 'schedulingPolicy'],
    [{ loadFormat: 'gguf' }, 'loadFormat'],
    [{ onProgress: 1 }, 'onProgress'],
    [{ packedWeightCache: '' }, 'packedWeightCache'],
    [{ packedWeightCache: true }, 'packedWeightCache'],
    [{ gpuMemoryUtilization: 2 }, 'gpuMemoryUtilization'],
    [{ gpuMemoryUtilization: 0 }, 'gpuMemoryUtilization'],
    [{ parallel: { devices: [] } }, 'parallel.devices'],
    [{ parallel: { devices: [-1] } }, 'parallel.devices[0]'],
    [{ parallel: { devices: [0, 1] } }, 'parallel.devices must be one device for each of 1 ranks'],
    [{ parallel: { devices: 0 } }, 'parallel.devices'],
    [{ parallel: 2 }, 'parallel'],
    [{ parallel: { tensorParallelSize: 3 } }, 'parallel.tensorParallelSize'],
    [{ parallel: { timeoutMs: 99 } }, 'parallel.timeoutMs'],
    [{ parallel: { customAllReduce: 1 } }, 'parallel.customAllReduce'],
    [{ parallel: { tensorParalelSize: 2 } }, 'tensorParallelSize'],
    [{ maxNumSeq: 4 }, 'maxNumSeqs'],
  ])('refuses %j by name', (config, key) => expect(() => resolve(config)).toThrow(key));

  it('ignores what a progress callback throws', () => {
    const seen: number[] = [];
    const { onProgress } = resolve({
      onProgress: (fraction: number) => {
        seen.push(fraction);
        throw new Error('display');
      },
    });
    expect(() => onProgress!(0.5)).not.toThrow();
    expect(seen).toEqual([0.5]);
  });

  describe('HEDDLE_CPU_ISA', () => {
    afterEach(() => delete process.env['HEDDLE_CPU_ISA']);

    it('names the instruction set', () => {
      process.env['HEDDLE_CPU_ISA'] = 'avx2';
      expect(resolve({}).cpuIsa).toBe('avx2');
    });

    it('counts as absent when empty', () => {
      process.env['HEDDLE_CPU_ISA'] = '';
      expect(resolve({}).cpuIsa).toBe('');
    });

    it('must be one that exists', () => {
      process.env['HEDDLE_CPU_ISA'] = 'sse';
      expect(() => resolve({})).toThrow(
        'HEDDLE_CPU_ISA must be one of "scalar", "avx2", "avx512", "avx512_vnni", "avx512_bf16" and "amx", received "sse"',
      );
    });
  });
});
