import { describeChatTemplate, describeTokenizer } from '@kvasir/port-contracts';
import { createChatTemplate, createTokenizer } from '../src/index.ts';
import { bpeSource, miniSpm, spmSource, trainMiniBpe } from './support/mini-vocabularies.ts';

const bpe = trainMiniBpe('the cat sat on the mat', 10);

describeTokenizer('byte-level BPE', { open: () => createTokenizer(bpeSource(bpe)) });
describeTokenizer('byte-level BPE in the worker', {
  open: () => createTokenizer(bpeSource(bpe), { inlineCharacters: 0 }),
});
describeTokenizer('SentencePiece BPE', { open: () => createTokenizer(spmSource(miniSpm(['▁the', '▁cat', '▁mat']))) });
describeChatTemplate('a Jinja template', {
  open: () =>
    createChatTemplate(bpeSource(bpe), {
      template:
        '{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}' +
        '{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}',
    }),
});
