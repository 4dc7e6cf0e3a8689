/** A folder of files, because nothing runs on the server. */
export default { output: "export" };
