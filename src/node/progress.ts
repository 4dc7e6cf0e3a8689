/** One line on a terminal's stderr that overwrites itself; silent where stderr is a file or a pipe. */
export function progressLine(): { show(text: string): void; end(): void } {
  const { stderr } = process;
  if (!stderr.isTTY) return { show() {}, end() {} };
  return {
    show: (text) => void stderr.write(`\r\x1b[K${text.slice(0, stderr.columns - 1)}`),
    end: () => void stderr.write("\r\x1b[K"),
  };
}
