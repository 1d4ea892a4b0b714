"""Hourglass52, to be trained on synthetic people for a while: a large network with weights that are not random.

Trained at half its input size, on people of half to full size, so that it can be run at 256x256 as well.
docs/quantization.md, "A large network", says what it is for.
"""
# ruff: noqa: C408  (mmpose's configs are written with dict())

_base_ = ["../hourglass_demo/config.py"]

train_cfg = dict(max_epochs=4, val_interval=1)
optim_wrapper = dict(optimizer=dict(lr=8e-4))
param_scheduler = [
    dict(type="LinearLR", begin=0, end=60, start_factor=0.01, by_epoch=False),
    dict(type="CosineAnnealingLR", begin=0, end=4, T_max=4, eta_min=1e-5, by_epoch=True, convert_to_iter_based=True),
]
codec = dict(type="MSRAHeatmap", input_size=(128, 128), heatmap_size=(32, 32), sigma=1.5)
model = dict(
    backbone=dict(
        _delete_=True,
        type="HourglassNet",
        num_stacks=1,
        init_cfg=[
            dict(type="Kaiming", layer=["Conv2d"]),
            dict(type="Constant", val=1, layer=["_BatchNorm"]),
        ],
    ),
    head=dict(in_channels=256),
)
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        pipeline=[
            dict(type="LoadImage"),
            dict(type="GetBBoxCenterScale"),
            dict(type="RandomFlip", direction="horizontal"),
            dict(type="RandomHalfBody", prob=0.1),
            dict(
                type="RandomBBoxTransform", shift_prob=0.2, scale_factor=(0.5, 1.1), rotate_factor=20, rotate_prob=0.4
            ),
            dict(type="TopdownAffine", input_size=codec["input_size"]),
            dict(type="GenerateTarget", encoder=codec),
            dict(type="PackPoseInputs"),
        ]
    ),
)
