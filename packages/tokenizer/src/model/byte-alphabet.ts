/**
 * GPT-2's printable spelling of bytes: printable Latin-1 characters stand for themselves, the other 68 bytes for
 * U+0100 onwards in order. Source: the vocabulary format published with GPT-2 (encoder.json).
 */
const CHARACTER_OF_BYTE: readonly number[] = buildAlphabet();
const BYTE_OF_CHARACTER: Int16Array = invert(CHARACTER_OF_BYTE);

/** The character that spells `byte`. */
export function byteToCharacter(byte: number): string {
  return String.fromCharCode(CHARACTER_OF_BYTE[byte] as number);
}

/** Bytes that `text` spells, or null where a character is outside the alphabet. */
export function alphabetToBytes(text: string): Uint8Array | null {
  const bytes = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index += 1) {
    const byte = BYTE_OF_CHARACTER[text.charCodeAt(index)] ?? -1;
    if (byte < 0) return null;
    bytes[index] = byte;
  }
  return bytes;
}

function isPrintable(byte: number): boolean {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

function buildAlphabet(): number[] {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    if (isPrintable(byte)) return byte;
    next += 1;
    return next - 1;
  });
}

function invert(characters: readonly number[]): Int16Array {
  const bytes = new Int16Array(0x200).fill(-1);
  for (const [byte, character] of characters.entries()) bytes[character] = byte;
  return bytes;
}
