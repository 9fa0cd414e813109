// Node's test environment, with the typed arrays and well-known symbols of the main realm: a native module creates its
// arrays there, and `instanceof` must hold in tests as it does in a program.
const { TestEnvironment } = require('jest-environment-node');

const SHARED_GLOBALS = [
  'ArrayBuffer',
  'SharedArrayBuffer',
  'DataView',
  ...[
    'Int8',
    'Uint8',
    'Uint8Clamped',
    'Int16',
    'Uint16',
    'Int32',
    'Uint32',
    'Float32',
    'Float64',
    'BigInt64',
    'BigUint64',
  ].map((type) => `${type}Array`),
];

module.exports = class extends TestEnvironment {
  async setup() {
    await super.setup();
    for (const name of SHARED_GLOBALS) this.global[name] = globalThis[name];
    for (const name of ['dispose', 'asyncDispose']) {
      if (this.global.Symbol[name] === Symbol[name]) continue;
      Object.defineProperty(this.global.Symbol, name, { value: Symbol[name], configurable: true });
    }
  }
};
