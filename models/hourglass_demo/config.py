"""A one-stack Hourglass of 1.1 M parameters for the synthetic people of PoseQuant's demo.

After mmpose's td-hm_hourglass52_8xb32-210e_coco-256x256.py, at half its input size and with a slim backbone.
"""
# ruff: noqa: C408  (mmpose's configs are written with dict())

custom_imports = dict(imports=["posequant.demo.backbone"], allow_failed_imports=False)
default_scope = "mmpose"

# runtime
train_cfg = dict(by_epoch=True, max_epochs=22, val_interval=3)
val_cfg = dict()
test_cfg = dict()

# optimizer
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=1.5e-3, weight_decay=0.01))

# learning policy: stepped every iteration, so that it scales with max_epochs
param_scheduler = [
    dict(type="LinearLR", begin=0, end=400, start_factor=0.01, by_epoch=False),
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
codec = dict(type="MSRAHeatmap", input_size=(128, 128), heatmap_size=(32, 32), sigma=1.5)

# model settings
model = dict(
    type="TopdownPoseEstimator",
    data_preprocessor=dict(
        type="PoseDataPreprocessor", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    backbone=dict(
        type="SlimHourglassNet",
        stem_channels=24,
        downsample_times=3,
        num_stacks=1,
        stage_channels=(48, 64, 80, 96),
        stage_blocks=(1, 1, 1, 1),
        feat_channel=48,
        # mmpose's default, a normal distribution of deviation 0.001, needs long training to leave zero.
        init_cfg=[
            dict(type="Kaiming", layer=["Conv2d"]),
            dict(type="Constant", val=1, layer=["_BatchNorm"]),
        ],
    ),
    head=dict(
        type="CPMHead",
        in_channels=48,
        out_channels=17,
        num_stages=1,
        deconv_out_channels=None,
        loss=dict(type="KeypointMSELoss", use_target_weight=True),
        decoder=codec,
    ),
    test_cfg=dict(
        flip_test=True,
        flip_mode="heatmap",
        shift_heatmap=True,
    ),
)

# base dataset settings
dataset_type = "CocoDataset"
data_mode = "topdown"
data_root = "data/demo/"

# pipelines
train_pipeline = [
    dict(type="LoadImage"),
    dict(type="GetBBoxCenterScale"),
    dict(type="RandomFlip", direction="horizontal"),
    dict(type="RandomHalfBody", prob=0.1),
    dict(type="RandomBBoxTransform", shift_prob=0.2, scale_factor=(0.8, 1.2), rotate_factor=20, rotate_prob=0.4),
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
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_mode=data_mode,
        ann_file="annotations/person_keypoints_train.json",
        data_prefix=dict(img="train/"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False, round_up=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_mode=data_mode,
        ann_file="annotations/person_keypoints_val.json",
        data_prefix=dict(img="val/"),
        test_mode=True,
        pipeline=val_pipeline,
    ),
)
test_dataloader = val_dataloader

# evaluators
val_evaluator = dict(type="CocoMetric", ann_file=data_root + "annotations/person_keypoints_val.json")
test_evaluator = val_evaluator

# hooks
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    visualization=dict(type="PoseVisualizationHook", enable=False),
)

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="gloo"),
)

# visualizer
vis_backends = [dict(type="LocalVisBackend")]
visualizer = dict(type="PoseLocalVisualizer", vis_backends=vis_backends, name="visualizer")

# logger
log_processor = dict(type="LogProcessor", window_size=50, by_epoch=True, num_digits=6)
log_level = "INFO"
load_from = None
resume = False
randomness = dict(seed=0, deterministic=True)

# file I/O backend
backend_args = dict(backend="local")
