"""The recurrent layers of networks that people run: their sizes, T and B as they are run, and where these are written.

Weights are drawn, as for every preset; only sizes matter to the time. What hears sound or steps through a text takes
one step a call (`stream`), on one thread; what has the whole of a sequence takes it at once (`forward`).
"""

from typing import NamedTuple

from bench.grid.cases import STREAM, Grid

STEPS = 200  # of a session, for what goes on as long as there is sound or text


class Deployed(NamedTuple):
    name: str
    source: str  # what it does, and a repository and its file, or a paper, in one line
    grid: Grid


def _layer(name, what, source, cell, I, H, T, B=1, operation="forward", layers=1, directions=1):
    threads = (1,) if operation == STREAM else (1, 2)
    sizes = {"input": (I,), "layers": (layers,), "directions": (directions,), "model": (name,)}
    return Deployed(name, f"{what}: {source}", Grid((H,), (B,), (T,), (operation,), threads, cell=(cell,), **sizes))


DEPLOYED = (
    _layer(
        "Silero VAD", "voice activity",
        "snakers4/silero-vad, src/silero_vad/tinygrad_model.py: LSTMCell(128, 128), a step for each chunk of 32 ms",
        "lstm", 128, 128, STEPS, operation=STREAM,
    ),
    _layer(
        "RNNoise", "noise suppression",
        "xiph/rnnoise, torch/rnnoise/rnnoise.py: three GRUs of gru_size 256 upon each other, a step for each 10 ms",
        "gru", 256, 256, STEPS, operation=STREAM, layers=3,
    ),
    _layer(
        "DeepFilterNet3, encoder", "noise suppression",
        "Rikorose/DeepFilterNet, DeepFilterNet/df/deepfilternet3.py: emb_gru, EMB_HIDDEN_DIM 256, a step for 10 ms",
        "gru", 256, 256, STEPS, operation=STREAM,
    ),
    _layer(
        "DeepFilterNet3, deep filter", "noise suppression",
        "Rikorose/DeepFilterNet, DeepFilterNet/df/deepfilternet3.py: df_gru, DF_HIDDEN_DIM 256, DF_NUM_LAYERS 3",
        "gru", 256, 256, STEPS, operation=STREAM, layers=3,
    ),
    _layer(
        "GTCRN, across frequencies", "noise suppression",
        "Xiaobin-Rong/gtcrn, gtcrn.py: DPGRNN(16, 33, 16), a half of intra_rnn: GRU(8, 4) both ways over 33 bands",
        "gru", 8, 4, 33, directions=2,
    ),
    _layer(
        "GTCRN, along time", "noise suppression",
        "Xiaobin-Rong/gtcrn, gtcrn.py: DPGRNN(16, 33, 16), half of inter_rnn: GRU(8, 8), 33 bands as B, 63 frames",
        "gru", 8, 8, 63, B=33,
    ),
    _layer(
        "Open-Unmix", "music separation",
        "sigsep/open-unmix-pytorch, openunmix/model.py: hidden_size 512, so 3 BiLSTMs of 256; 256 frames are 6 s",
        "lstm", 512, 256, 256, layers=3, directions=2,
    ),
    _layer(
        "Amplifier model", "guitar plugins",
        "GuitarML/Proteus, README.md: captures of an LSTM of 40; a block of 64 samples a call",
        "lstm", 1, 40, 64,
    ),
    _layer(
        "WaveRNN, first layer", "vocoder",
        "fatchord/WaveRNN, hparams.py and models/fatchord_version.py: rnn1, voc_rnn_dims 512, a step for each sample",
        "gru", 512, 512, STEPS, operation=STREAM,
    ),
    _layer(
        "WaveRNN, second layer", "vocoder",
        "fatchord/WaveRNN, models/fatchord_version.py: rnn2, 512 + 32 inputs, a step for each sample",
        "gru", 544, 512, STEPS, operation=STREAM,
    ),
    _layer(
        "LPCNet, first layer", "vocoder",
        "xiph/LPCNet, training_tf2/lpcnet.py: gru_a, rnn_units1 384 of 3 x 128 + 128 inputs; here it is dense",
        "gru", 512, 384, STEPS, operation=STREAM,
    ),
    _layer(
        "LPCNet, second layer", "vocoder",
        "xiph/LPCNet, training_tf2/lpcnet.py: gru_b, rnn_units2 16 of 384 + 128 inputs",
        "gru", 512, 16, STEPS, operation=STREAM,
    ),
    _layer(
        "DeepSpeech", "speech recognition",
        "mozilla/DeepSpeech, training/deepspeech_training/util/flags.py: n_hidden 2048, export n_steps 16 and batch 1",
        "lstm", 2048, 2048, 16,
    ),
    _layer(
        "RNN-T, encoder", "speech recognition",
        "mlcommons/inference, rnnt, model_separable_rnnt.py: pre_rnn, 2 LSTMs of encoder_n_hidden 1024, 240 features",
        "lstm", 240, 1024, 100, layers=2,
    ),
    _layer(
        "RNN-T, prediction", "speech recognition",
        "mlcommons/inference, rnnt, model_separable_rnnt.py: dec_rnn, 2 LSTMs of pred_n_hidden 320, a step a token",
        "lstm", 320, 320, STEPS, operation=STREAM, layers=2,
    ),
    _layer(
        "CRNN, first layer", "text recognition",
        "meijieru/crnn.pytorch, models/crnn.py: BidirectionalLSTM(512, 256); an image of 32 x 100 is 26 steps",
        "lstm", 512, 256, 26, directions=2,
    ),
    _layer(
        "CRNN, second layer", "text recognition",
        "meijieru/crnn.pytorch, models/crnn.py: BidirectionalLSTM(256, 256)",
        "lstm", 256, 256, 26, directions=2,
    ),
    _layer(
        "DeepAR", "forecasting",
        "awslabs/gluonts, src/gluonts/torch/model/deepar: 2 layers of 40, num_parallel_samples 100; I is as the data",
        "lstm", 20, 40, STEPS, B=100, operation=STREAM, layers=2,
    ),
    _layer(
        "GRU4Rec", "recommendation",
        "hidasib/GRU4Rec, paramfiles/rsc15_xe_shared_100_best.py: layers [100], batch_size 32; a step for each click",
        "gru", 100, 100, STEPS, B=32, operation=STREAM,
    ),
    _layer(
        "char-rnn", "text",
        "karpathy/char-rnn, train.lua: num_layers 2, rnn_size 128; tinyshakespeare has 65 characters; a step for each",
        "lstm", 65, 128, STEPS, operation=STREAM, layers=2,
    ),
    _layer(
        "AWD-LSTM, first layer", "language model",
        "salesforce/awd-lstm-lm, main.py: emsize 400, nhid 1150, bptt 70; evaluate(batch_size=10)",
        "lstm", 400, 1150, 70, B=10,
    ),
    _layer(
        "AWD-LSTM, second layer", "language model",
        "salesforce/awd-lstm-lm, main.py: nhid 1150, bptt 70; evaluate(batch_size=10)",
        "lstm", 1150, 1150, 70, B=10,
    ),
    _layer(
        "AWD-LSTM, third layer", "language model",
        "salesforce/awd-lstm-lm, main.py: nhid 1150 to emsize 400, bptt 70; evaluate(batch_size=10)",
        "lstm", 1150, 400, 70, B=10,
    ),
)  # fmt: skip
