"""Makes the files beside it with the real frameworks: python make_files.py (keras, a backend of its, torch, safetensors)."""

import keras
import numpy as np
import torch
from keras import layers
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_state_dict

rng = np.random.default_rng(2026)


def expect(name, model, inputs):
    """Every variable of the batch norms, and what each makes of x in inference."""
    tensors = {"x": inputs}
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            for variable in layer.weights:
                tensors[layer.name + "/" + variable.name] = variable.numpy()
            tensors[layer.name + "/y"] = np.asarray(layer(inputs, training=False))
    save_file(tensors, name)


def trained(model):
    for _ in range(3):
        model(rng.normal(3, 2, size=(8, 3)).astype("float32"), training=True)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape).astype("float32"))
    return model


x = rng.normal(3, 2, size=(4, 3)).astype("float32")

model = trained(
    keras.Sequential(
        [
            layers.Input((3,)),
            layers.BatchNormalization(name="first", momentum=0.9, epsilon=1e-5),
            layers.BatchNormalization(name="no_scale", scale=False),
            layers.BatchNormalization(name="neither", center=False, scale=False),
        ]
    )
)
model.save("model.keras")
model.save("model.h5")
expect("model.expected.safetensors", model, x)


class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)
        self.norm = layers.BatchNormalization(name="mine")
        self.again = layers.BatchNormalization(name="renormed", renorm=True)

    def call(self, inputs, training=False):
        return self.again(self.norm(self.dense(inputs), training=training), training=training)


net = trained(Net())
net.save_weights("net.weights.h5")
expect("net.expected.safetensors", net, x)

torch.manual_seed(2026)
module = torch.nn.Sequential(
    torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3, momentum=0.2), torch.nn.SyncBatchNorm(3, affine=False)
)
for _ in range(3):
    module[1](torch.randn(4, 3, 2, 2))
module[1].weight.data.normal_()
module[1].bias.data.normal_()
save_state_dict(module.state_dict(), "module.safetensors", {"1.momentum": "0.2", "1.eps": "1e-05"})
module.eval()
images = torch.randn(2, 3, 2, 2)
save_state_dict({"x": images, "y": module[1](images).detach()}, "module.expected.safetensors")
