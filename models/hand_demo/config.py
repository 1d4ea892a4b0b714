"""A one-stack Hourglass of 0.28 M parameters for the synthetic hands of PoseQuant's second demo.

That of the demo's people, at three quarters of its input size and with fewer channels. README.md beside it says how it
was trained:

    python scripts/demo_dataset.py --kind hand --train-images 2000 --val-images 200 --seed 0 --out DATA
    python scripts/train_demo_model.py --config models/hand_demo/config.py --data DATA --work-dir WORK --out CHECKPOINT
"""
# ruff: noqa: C408  (mmpose's configs are written with dict())

_base_ = ["../hourglass_demo/config.py"]

# runtime
train_cfg = dict(max_epochs=40, val_interval=40)

# optimizer
optim_wrapper = dict(optimizer=dict(lr=3e-3))

# learning policy: stepped every iteration, so that it scales with max_epochs
param_scheduler = [
    dict(type="LinearLR", begin=0, end=100, start_factor=0.01, by_epoch=False),
    dict(
        type="CosineAnnealingLR",
        begin=0,
        end=train_cfg["max_epochs"],
        T_max=train_cfg["max_epochs"],
        eta_min=1e-5,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]

# codec settings
codec = dict(type="MSRAHeatmap", input_size=(96, 96), heatmap_size=(24, 24), sigma=1.25)

# model settings
model = dict(
    backbone=dict(stem_channels=16, stage_channels=(24, 32, 40, 48), feat_channel=32),
    head=dict(in_channels=32, out_channels=21, decoder=codec),
)

# base dataset settings
metainfo = dict(from_file="configs/_base_/datasets/coco_wholebody_hand.py")

# pipelines
train_pipeline = [
    dict(type="LoadImage"),
    dict(type="GetBBoxCenterScale"),
    dict(type="RandomFlip", direction="horizontal"),
    dict(type="RandomBBoxTransform", shift_prob=0.2, scale_factor=(0.85, 1.15), rotate_factor=20, rotate_prob=0.4),
    dict(type="TopdownAffine", input_size=codec["input_size"]),
    dict(type="GenerateTarget", encoder=codec),
    dict(type="PackPoseInputs"),
]
val_pipeline = [
    dict(type="LoadImage"),
    dict(type="GetBBoxCenterScale"),
    dict(type="TopdownAffine", input_size=codec["input_size"]),
    dict(type="PackPoseInputs"),
]

# data loaders
train_dataloader = dict(dataset=dict(metainfo=metainfo, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(metainfo=metainfo, pipeline=val_pipeline))
test_dataloader = val_dataloader
