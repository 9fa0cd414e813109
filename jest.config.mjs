/** @type {import('jest').Config} */
export default {
  roots: ['<rootDir>/test'],
  testMatch: ['**/*.test.ts'],
  globalSetup: '<rootDir>/test/helpers/global-setup.mjs',
  testEnvironment: '<rootDir>/test/helpers/environment.cjs',
  testTimeout: 60_000,
  // Tests measure event-loop delay and wait for compute threads: they do not share the machine with each other.
  maxWorkers: 1,
  transform: {
    '\\.ts$': ['@swc/jest', { jsc: { parser: { syntax: 'typescript' }, target: 'es2022' }, sourceMaps: 'inline' }],
  },
  moduleNameMapper: { '^heddle$': '<rootDir>/lib/index.ts' },
};
