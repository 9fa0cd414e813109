import { inspect } from 'node:util';

import * as heddle from '../../lib';
import { callSite, errorFromNative, withOutput } from '../../lib/errors';
import type { GenerationOutput } from '../../types/index';
import { nativeError } from '../helpers/fake-addon';

const output = { requestId: 'r' } as GenerationOutput;

describe('the error classes', () => {
  it.each([
    ['InvalidArgumentError', 'ERR_INVALID_ARGUMENT'],
    ['ModelFormatError', 'ERR_MODEL_FORMAT'],
    ['UnsupportedModelError', 'ERR_UNSUPPORTED_MODEL'],
    ['InsufficientMemoryError', 'ERR_INSUFFICIENT_MEMORY'],
    ['QueueFullError', 'ERR_QUEUE_FULL'],
    ['RankFailedError', 'ERR_RANK_FAILED'],
    ['CommTimeoutError', 'ERR_COMM_TIMEOUT'],
    ['EngineClosedError', 'ERR_ENGINE_CLOSED'],
    ['EngineFailedError', 'ERR_ENGINE_FAILED'],
    ['RequestFailedError', 'ERR_REQUEST_FAILED'],
  ] as const)('%s has its name, the code %s and a cause', (name, code) => {
    const cause = new Error('why');
    const error = new heddle[name]('what', { cause });
    expect(error).toBeInstanceOf(heddle.HeddleError);
    expect(error).toMatchObject({ name, code, message: 'what', cause });
    expect(error.stack).toMatch(`${name}: what`);
    expect(Object.keys(error)).toEqual(['code']);
  });

  it('of an aborted request is an AbortError with its output', () => {
    const error = new heddle.RequestAbortedError(output, { cause: 'reason' });
    expect(error).toMatchObject({ name: 'AbortError', code: 'ERR_REQUEST_ABORTED', cause: 'reason' });
    expect(error.output).toBe(output);
  });

  it('keep outputs out of logs', () => {
    const error = withOutput(new heddle.EngineFailedError('what'), output);
    expect(error.output).toBe(output);
    expect(inspect(error)).not.toContain('requestId');
    expect(JSON.stringify(error)).not.toContain('requestId');
  });
});

describe('errorFromNative', () => {
  const convert = (code: string) => errorFromNative(nativeError(code, 'what'), {});

  it.each([
    ['ERR_INVALID_ARGUMENT', 'InvalidArgumentError'],
    ['ERR_MODEL_FORMAT', 'ModelFormatError'],
    ['ERR_UNSUPPORTED_MODEL', 'UnsupportedModelError'],
    ['ERR_INSUFFICIENT_MEMORY', 'InsufficientMemoryError'],
    ['ERR_QUEUE_FULL', 'QueueFullError'],
    ['ERR_RANK_FAILED', 'RankFailedError'],
    ['ERR_COMM_TIMEOUT', 'CommTimeoutError'],
    ['ERR_ENGINE_CLOSED', 'EngineClosedError'],
    ['ERR_CANCELLED', 'EngineClosedError'],
    ['ERR_ENGINE_FAILED', 'EngineFailedError'],
    ['ERR_REQUEST_FAILED', 'RequestFailedError'],
    ['ERR_INTERNAL', 'EngineFailedError'],
    ['ERR_OF_TOMORROW', 'EngineFailedError'],
  ])('makes of %s an %s', (code, name) => expect(convert(code).name).toBe(name));

  it('keeps message and cause, and shows where the caller stood', () => {
    const native = nativeError('ERR_QUEUE_FULL', 'full');
    const theCaller = () => callSite();
    const error = errorFromNative(native, theCaller());
    expect(error.cause).toBe(native);
    expect(error.stack).toMatch(/^QueueFullError: full\n {4}at .*theCaller/);
  });

  it('lets typed errors pass', () => {
    const error = new heddle.QueueFullError('full');
    expect(errorFromNative(error, callSite())).toBe(error);
  });

  it.each([[null], [undefined], ['text'], [7], [{}], [Symbol('s')]])('takes %p, which is no error', (thrown) => {
    expect(errorFromNative(thrown, {}).code).toBe('ERR_ENGINE_FAILED');
  });
});

it('the package exports the engine, its errors and what makes checkpoints smaller, and nothing else at run time', () => {
  expect(Object.keys(heddle).sort()).toEqual([
    'CommTimeoutError',
    'Engine',
    'EngineClosedError',
    'EngineFailedError',
    'HeddleError',
    'InsufficientMemoryError',
    'InvalidArgumentError',
    'ModelFormatError',
    'QueueFullError',
    'RankFailedError',
    'RequestAbortedError',
    'RequestFailedError',
    'UnsupportedModelError',
    'pruneCheckpoint',
    'quantizeCheckpoint',
  ]);
});
