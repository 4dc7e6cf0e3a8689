/** Relative addresses, so that the build may lie anywhere. */
export default { base: "./" };
