/** Quantised and sparse checkpoints that are broken are refused by name, before the engine starts. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { bundledModel, createEngine } from '../helpers/engine';
import { type StoredForm, writeQuantizedCheckpoint } from '../helpers/quantized-checkpoint';
import { readTensors, type StoredTensor, type Tensors, writeTensors } from '../helpers/safetensors';

const MODULE = 'model.layers.3.mlp.down_proj'; // [256, 640]

let root: string;
beforeAll(() => {
  root = mkdtempSync(path.join(tmpdir(), 'heddle-quantized-'));
  for (const form of ['llm-int8', 'w8a8', 'packed-int8', '2:4', '2:4 w8a8'] as const) {
    writeQuantizedCheckpoint(bundledModel, path.join(root, form), form);
  }
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

interface Checkpoint {
  tensors: Tensors;
  config: { quantization_config: Record<string, unknown> };
}

/** What an engine says of a checkpoint of this form that `breakIt` has broken. */
async function refusal(form: StoredForm, breakIt: (checkpoint: Checkpoint) => void) {
  const folder = path.join(root, 'broken');
  rmSync(folder, { recursive: true, force: true });
  cpSync(path.join(root, form), folder, { recursive: true });
  const file = path.join(folder, 'config.json');
  const tensors = readTensors(folder);
  const config = JSON.parse(readFileSync(file, 'utf8')) as Checkpoint['config'];
  breakIt({ tensors, config });
  writeTensors(folder, tensors);
  writeFileSync(file, JSON.stringify(config));
  try {
    await (await createEngine({ model: folder })).close();
  } catch (error) {
    return error as { code: string; message: string };
  }
  throw new Error('was accepted');
}

/** Another tensor of the module: with other bytes, another shape, or absent. */
const tensor =
  (suffix: string, change: Partial<StoredTensor> | ((data: Buffer) => void) | null) =>
  ({ tensors }: Checkpoint) => {
    const name = `${MODULE}.${suffix}`;
    const { dtype, shape, data } = tensors.get(name)!;
    if (change === null) {
      tensors.delete(name);
    } else if (typeof change === 'function') {
      change(data);
    } else {
      tensors.set(name, { dtype, shape, data, ...change });
    }
  };

const group = ({ config }: Checkpoint) =>
  (config.quantization_config['config_groups'] as { group_0: Record<'weights', Record<string, unknown>> }).group_0;
const sparsity = ({ config }: Checkpoint) => config.quantization_config['sparsity_config'] as Record<string, unknown>;

const CASES: [string, StoredForm, (checkpoint: Checkpoint) => void, string][] = [
  [
    'a scale of zero',
    'llm-int8',
    tensor('SCB', (data) => data.writeFloatLE(0, 4 * 7)),
    'SCB" row 7 must be finite and above zero, found 0',
  ],
  [
    'a scale of NaN',
    'llm-int8',
    tensor('SCB', (data) => data.writeFloatLE(NaN, 4 * 255)),
    'SCB" row 255 must be finite and above zero, found nan',
  ],
  [
    'a negative scale',
    'w8a8',
    tensor('weight_scale', (data) => data.writeUInt16LE(0xbf80, 2 * 3)),
    'weight_scale" row 3 must be finite and above zero, found -1',
  ],
  [
    'an infinite scale',
    '2:4 w8a8',
    tensor('weight_scale', (data) => data.writeUInt16LE(0x7f80, 0)),
    'weight_scale" row 0 must be finite and above zero, found inf',
  ],
  ['no scales', 'llm-int8', tensor('SCB', null), 'SCB" is missing, expected with shape [256]'],
  [
    'too few scales',
    'w8a8',
    tensor('weight_scale', { shape: [128, 1], data: Buffer.alloc(256, 1) }),
    'weight_scale" must have shape [256, 1] or [256], as quantization_config has it in int8, found [128, 1]',
  ],
  [
    'an order of columns',
    'llm-int8',
    tensor('weight_format', (data) => data.fill(1)),
    'weight_format" must be 0, which is row-major, found 1',
  ],
  [
    'a float matrix that should be int8',
    'w8a8',
    tensor('weight', { dtype: 'BF16', data: Buffer.alloc(2 * 256 * 640) }),
    'weight" must have dtype I8, as quantization_config has it in int8, found BF16',
  ],
  [
    'an int8 matrix that should be float',
    'w8a8',
    ({ config }) => (config.quantization_config['ignore'] = [MODULE]),
    'weight" must have dtype F32, BF16 or F16, as quantization_config does not have it in int8, found I8',
  ],
  [
    'a packed shape that disagrees',
    'packed-int8',
    tensor('weight_shape', (data) => data.writeBigInt64LE(641n, 8)),
    'weight_shape" must hold [256, 640], found [256, 641]',
  ],
  [
    'a mask that is not 2:4',
    '2:4',
    tensor('bitmask', (data) => data.writeUInt8(0x37, 80 * 9 + 2)),
    'bitmask" row 9 must have two of columns 16 to 19, found the bits 1110',
  ],
  [
    'a mask of another shape',
    '2:4',
    tensor('bitmask', { shape: [80, 256] }),
    'bitmask" must have shape [256, 80], as quantization_config.sparsity_config has it 2:4 sparse, found [80, 256]',
  ],
  [
    'a sparse shape that disagrees',
    '2:4',
    tensor('shape', (data) => data.writeBigInt64LE(512n, 0)),
    'shape" must hold [256, 640], found [512, 640]',
  ],
  ['no elements', '2:4 w8a8', tensor('compressed', null), 'compressed" is missing, expected with shape [256, 320]'],
  [
    'a tensor without use',
    'w8a8',
    ({ tensors }) => tensors.set(`${MODULE}.input_scale`, { dtype: 'F32', shape: [1], data: Buffer.alloc(4) }),
    'input_scale, which its config.json gives no use for',
  ],
];

it.each(CASES)('%s (%s) is refused by name', async (_, form, breakIt, message) => {
  expect(await refusal(form, breakIt)).toMatchObject({
    code: 'ERR_MODEL_FORMAT',
    message: expect.stringContaining(`${MODULE}.${message}`),
  });
});

const UNSUPPORTED: [string, StoredForm, (checkpoint: Checkpoint) => void, string][] = [
  [
    'an unknown method',
    'w8a8',
    ({ config }) => (config.quantization_config = { quant_method: 'gptq' }),
    '.quant_method "gptq" is not supported; the methods are bitsandbytes and compressed-tensors',
  ],
  [
    'an unknown format',
    'w8a8',
    ({ config }) => (config.quantization_config['format'] = 'marlin-24'),
    '.format "marlin-24" is not supported',
  ],
  [
    'four bits',
    'w8a8',
    (checkpoint) => (group(checkpoint).weights['num_bits'] = 4),
    '.config_groups["group_0"].weights.num_bits 4 is not supported',
  ],
  [
    'another sparsity',
    '2:4',
    (checkpoint) => (sparsity(checkpoint)['format'] = 'sparse-bitmask'),
    '.sparsity_config.format "sparse-bitmask" is not supported',
  ],
];

it.each(UNSUPPORTED)('%s (%s) is refused as unsupported', async (_, form, breakIt, message) => {
  expect(await refusal(form, breakIt)).toMatchObject({
    code: 'ERR_UNSUPPORTED_MODEL',
    message: expect.stringContaining(`config.json: quantization_config${message}`),
  });
});
