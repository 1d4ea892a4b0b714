# From wildcards to files and options: the input functions and parameters of all rules, in the order of the stages.

DETECTIONS_HINT = (
    "Detector boxes are not downloaded. Those of COCO val2017 (COCO_val2017_detections_AP_H_56_person.json, 104,125"
    " boxes) are offered for download by hand, from OneDrive and Google Drive, at"
    " https://mmpose.readthedocs.io/en/latest/dataset_zoo/2d_body_keypoint.html#coco. Place the file at that path, or"
    " name another in the study's dataset.detections, or evaluate with protocol: {boxes: ground-truth}."
)


@cache
def located(source: str, study: str, key: str) -> str:
    """Where a file or folder lies that a key of a study names by its path or address.

    A path that the working folder lacks may lie beside this workflow, as the demo's network does. The user's files are
    looked for while the run is planned, unless a storage plugin has them. One that is missing ends Snakemake: of an
    error it would make nothing, take what an earlier run made from the file for a file of the user's, and say that
    nothing is to be done.
    """
    if download := parse_source(source):
        return f"{DOWNLOADS}/{download.content}"
    if workflow.storage_settings.default_storage_provider:
        return source
    try:
        return str(find_file(f"studies.{study}.{key}", source, ROOT))
    except InputError as error:
        if not workflow.is_main_process:
            return source
        logger.error(
            f"{error} {DETECTIONS_HINT if key == 'dataset.detections' else ''}"
        )
        sys.exit(1)


# Snakemake's `lookup` would walk through the whole configuration for every job: half of the time of a large plan.
def study_settings(*keys: str):
    """Parameter: what the configuration says of a study under `keys`, one in the other."""

    def settings(wildcards):
        found = config["studies"][wildcards.study]
        for key in keys:
            found = found[key]
        return found

    return settings


def variant_options(wildcards) -> str:
    """Options of a variant's network."""
    name = wildcards.variant
    variant = config["variants"][name]
    return (
        f"--variant {name} --backend {variant['backend']} --precision {variant['precision']}"
        f"{vulkan_option([name])}"
    )


def prediction_options(wildcards) -> str:
    """Options of a variant's network, of the protocol's flip test, and of a shard."""
    protocol = config["studies"][wildcards.study]["protocol"]
    flip_test = "--flip-test " if protocol["flip_test"] else ""
    shard = f"--shard {wildcards.shard} --shards {wildcards.shards}"
    return f"{variant_options(wildcards)} {flip_test}{shard}"


def vulkan_option(rows) -> str:
    """Option that names the Vulkan device, where one of the rows runs on it and the configuration says which."""
    if "vulkan_device" not in config or not set(rows) & set(VULKAN):
        return ""
    return f" --vulkan-device {shlex.quote(config['vulkan_device'])}"


def model_file(key: str):
    """Input function: the `config`, `checkpoint`, `onnx`, `param` or `bin` of a model."""

    def path(wildcards) -> str:
        source = config["studies"][wildcards.study]["models"][wildcards.model][key]
        return located(source, wildcards.study, f"models.{wildcards.model}.{key}")

    return path


def dataset(split: str, part: str):
    """Input function: the `images` or `annotations` of a `split` of the study's dataset."""

    def path(wildcards) -> str:
        source = config["studies"][wildcards.study]["dataset"]
        folder = f"results/{wildcards.study}/dataset"
        if "synthetic" not in source:
            # Images that are not named are fetched: of training images, those that calibration needs.
            if part not in source[split]:
                if split == "val":
                    return f"results/{wildcards.study}/{subset_in(wildcards)}evaluation_images"
                return f"results/{wildcards.study}/calibration_images"
            return located(
                source[split][part], wildcards.study, f"dataset.{split}.{part}"
            )
        annotations = f"{folder}/annotations/person_keypoints_{split}.json"
        return annotations if part == "annotations" else f"{folder}/{split}"

    return path


def subset_of(study: str) -> str:
    """Which people a study evaluates: the part of a path, `SUBSET`; empty for all of them."""
    choice = config["studies"][study]["dataset"]["val"]
    return SUBSET.format(**choice) if "people" in choice else ""


def subset_in(wildcards) -> str:
    """The subset that a path names, or else that of the study."""
    return wildcards.get("subset", subset_of(wildcards.study))


def evaluated_annotations(wildcards) -> str:
    """Input function: the annotations of the people who are evaluated."""
    if subset := subset_in(wildcards):
        return f"results/{wildcards.study}/{subset}annotations.json"
    return dataset("val", "annotations")(wildcards)


def keypoints_of(study: str) -> str:
    """The name or file of a study's set of keypoints."""
    source = config["studies"][study]["dataset"]
    if drawn := source.get("synthetic"):
        return DRAWN_KEYPOINTS[drawn["kind"]]
    return source["keypoints"]


def keypoints_file(wildcards) -> list[str]:
    """Input function: the user's file of the study's set of keypoints; none where the set has a name."""
    source = keypoints_of(wildcards.study)
    return (
        [located(source, wildcards.study, "dataset.keypoints")]
        if is_file(source)
        else []
    )


def keypoints_option(wildcards, input) -> str:
    """Option that names the study's set of keypoints, where it is not COCO's."""
    source = keypoints_of(wildcards.study)
    named = input.keypoints or source
    return "" if source == "coco" else f"--keypoints {shlex.quote(str(named))}"


def user_images(split: str, wildcards) -> str:
    """The folder of a split's images where the user keeps them here; empty where a rule makes it, or it is elsewhere."""
    if workflow.storage_settings.default_storage_provider:
        return ""
    source = config["studies"][wildcards.study]["dataset"].get(split, {})
    kept = "images" in source and not parse_source(source["images"])
    return dataset(split, "images")(wildcards) if kept else ""


def images_state(split: str):
    """Parameter: hash of the names, sizes and times of a split's images, where the user keeps them.

    An image that is overwritten leaves the time of its folder alone.
    """

    def state(wildcards) -> str:
        folder = user_images(split, wildcards)
        return fingerprint(Path(folder)) if folder else ""

    return state


def chosen_images_state(choice: str):
    """Parameter: the same of the images of the people whom the file `choice` names."""

    def state(wildcards) -> str:
        folder = user_images("train", wildcards)
        if not folder:
            return ""
        # While the file is still to be made, Snakemake asks again before the job.
        with open(choice.format(**wildcards)) as chosen:
            people = json.load(chosen)["people"]
        names = {person["image"]["file_name"] for person in people}
        return fingerprint(Path(folder), frozenset(names))

    return state


def distillation_images(wildcards) -> str:
    """Input function: the training images, of which those of the people to distill on are there."""
    source = config["studies"][wildcards.study]["dataset"]
    if "synthetic" in source or "images" in source["train"]:
        return dataset("train", "images")(wildcards)
    return DISTILLATION_IMAGES.format(**wildcards)


def distillation_crops(wildcards) -> list[str]:
    """Input function: the crops that a variant distills on, where its recipe has that step."""
    if wildcards.variant not in DISTILLED:
        return []
    people = DISTILLED[wildcards.variant]
    return [DISTILLATION_CROPS.format(**wildcards, people=people)]


def detections(wildcards) -> list[str]:
    """Input function: the detector boxes, where the protocol takes them."""
    study = config["studies"][wildcards.study]
    if study["protocol"]["boxes"] == "ground-truth":
        return []
    source = study["dataset"]["detections"]
    return [located(source, wildcards.study, "dataset.detections")]


def evaluation_set(wildcards) -> dict[str, str | list[str]]:
    """Input function: the images, annotations and detector boxes of the evaluation set."""
    return {
        "annotations": evaluated_annotations(wildcards),
        "images": dataset("val", "images")(wildcards),
        "detections": detections(wildcards),
    }


def to_predict(wildcards) -> dict[str, str | list[str]]:
    """Input function: the evaluation set, and the files that the variant's backend loads.

    One function in place of four: what Snakemake needs to call one is most of what a job adds to a large plan.
    """
    return {**evaluation_set(wildcards), "artifact": artifact(wildcards)}


def artifact(wildcards) -> list[str]:
    """Input function: the files that the variant's backend loads."""
    return artifact_of(wildcards.variant, wildcards)


def artifact_of(variant: str, wildcards) -> list[str]:
    """The files that a variant's backend loads, of the wildcards' model, and the record of the step that made them."""
    folder = RESULTS.format(**wildcards)
    own, converted = f"{folder}/{quantized_as(variant)}", f"{folder}/converted"
    match config["variants"][variant]:
        case {"backend": "onnxruntime", "precision": "int8"}:
            return [f"{own}/model.onnx", f"{own}/quantize.json"]
        case {"backend": "openvino", "precision": "int8"}:
            return [f"{own}/model.xml", f"{own}/model.bin", f"{own}/quantize.json"]
        case {"backend": "pytorch"}:
            return [model_file(key)(wildcards) for key in ("config", "checkpoint")]
        case {"backend": "onnxruntime"}:
            return [f"{folder}/onnx/simplified.onnx", f"{folder}/onnx/simplify.json"]
        case {"backend": "openvino"}:
            return [
                f"{converted}/openvino.{ending}" for ending in ("xml", "bin", "json")
            ]
        case {"precision": "int8"}:
            return [f"{own}/model.param", f"{own}/model.bin", f"{own}/ncnn2int8.json"]
        case {"precision": precision}:
            # bf16 is what the runtime makes of the fp32 weights when it loads them.
            network = f"{converted}/ncnn-{'fp16' if precision == 'fp16' else 'fp32'}"
            return [f"{network}.{ending}" for ending in ("param", "bin", "json")]


def quantized_as(variant: str) -> str:
    """The variant whose INT8 network a variant runs: on Vulkan that of the same calibration on the CPU, else its own."""
    if variant not in VULKAN:
        return variant
    calibration = config["variants"][variant].get("calibration")
    return next(
        (
            name
            for name in NCNN_INT8
            if config["variants"][name]["calibration"] == calibration
        ),
        variant,
    )


def fp32_variant(wildcards) -> str:
    """The FP32 variant of the same runtime, the study's first if it lists one; the check of the configuration sees to it."""
    backend = config["variants"][wildcards.variant]["backend"]
    candidates = variants_with(backend=backend, precision="fp32")
    listed = config["studies"][wildcards.study]["variants"]
    return next((name for name in listed if name in candidates), candidates[0])


def fp32_predictions(wildcards) -> str:
    """Input function: what the same runtime predicts in FP32."""
    return f"{RESULTS.format(**wildcards)}/{fp32_variant(wildcards)}/predictions.npz"


def fp32_artifact(wildcards) -> list[str]:
    """Input function: the files of the FP32 network in the same runtime."""
    return artifact_of(fp32_variant(wildcards), wildcards)


def official_tool(name: str) -> str:
    """Option that hands a step to the official program, where the configuration or PATH names it."""
    choice = config["tools"][name]
    program = {"builtin": None, "auto": shutil.which(name)}.get(choice, choice)
    return f"--tool {shlex.quote(program)}" if program else ""


def per_row(name: str, **properties: str):
    """Input function: the file `name` of every row of a study, or of the wildcards' model if there is one; with
    `properties`, of the rows that have them.
    """

    def paths(wildcards) -> list[str]:
        wanted = set(variants_with(**properties))
        model = getattr(wildcards, "model", None)
        return [
            f"{RESULTS}/{{variant}}/{name}".format(
                study=wildcards.study, model=model, variant=row
            )
            for model in ([model] if model else models_of(wildcards.study))
            for row in rows_of(wildcards.study, model)
            if row in wanted
        ]

    return paths


def operators(ending: str):
    """Input function: the page of a network's operators, or of its layers where there is ncnn's network only; of every
    network of a study where the wildcards name none.
    """

    def paths(wildcards) -> list[str]:
        study = wildcards.study
        model = getattr(wildcards, "model", None)
        return [
            f"{RESULTS}/{folder}/operators.{ending}".format(study=study, model=model)
            for model in ([model] if model else models_of(study))
            for folder in ["converted" if model in models_from("ncnn") else "onnx"]
        ]

    return paths


def per_model(name: str):
    """Input function: the file `name` of every model of a study."""

    def paths(wildcards) -> list[str]:
        return expand(
            f"{RESULTS}/{name}",
            study=wildcards.study,
            model=models_of(wildcards.study),
        )

    return paths


def reduced(name: str):
    """Input function: the file `name` of the rows, as of `per_row`, that are in reduced precision."""

    def paths(wildcards) -> list[str]:
        of_all = per_row(name)(wildcards)
        return [path for path in of_all if Path(path).parent.name in REDUCED]

    return paths


def own_certificate(wildcards) -> list[str]:
    """Input function: the certificate of a row and its page, if the row is in reduced precision."""
    row = f"{RESULTS}/{{variant}}".format(**wildcards)
    reduced = wildcards.variant in REDUCED
    return [f"{row}/certificate.json", f"{row}/certificate.md"] if reduced else []


def own_table(wildcards) -> list[str]:
    """Input function: the calibration table of a row, if ncnn runs it in INT8."""
    quantized = quantized_as(wildcards.variant)
    table = f"{RESULTS.format(**wildcards)}/{quantized}/model.table"
    return [table] if quantized in NCNN_INT8 else []


def network_license_option(wildcards) -> str:
    """Option that says the licence of a model's network, where the configuration does."""
    named = config["studies"][wildcards.study]["models"][wildcards.model].get("license")
    return f"--network-license {shlex.quote(named)}" if named else ""


def recipe_records(wildcards) -> list[str]:
    """Input function: the records of the recipes that rows, as of `per_row`, were made by."""
    records = per_row("recipe.json", backend="ncnn", precision="int8")(wildcards)
    return [record for record in records if Path(record).parent.name in WITH_RECIPE]


def attributions(wildcards) -> list[str]:
    """Input function: the attributions of the rows, as of `per_row`, that a study names for that."""
    chosen = config["studies"][wildcards.study]["attribution"]
    paths = per_row("attribution.json")(wildcards)
    return [path for path in paths if Path(path).parent.name in chosen]


def report_pages(wildcards) -> list[str]:
    """Input function: the pages that the report of a study takes in, or the pictures of which it shows, in the form that
    `snakemake --report` shows.

    Their content tells whether a picture changed; the records beside them have the names of pictures only.
    """
    records = [
        *reduced("pictures.json")(wildcards),
        *reduced("certificate.json")(wildcards),
        *recipe_records(wildcards),
        *attributions(wildcards),
    ]
    pages = [str(Path(record).with_suffix(".html")) for record in records]
    return pages + operators("html")(wildcards)


def settings_of_network(wildcards) -> str:
    """What the configuration says of a study, as JSON, with the wildcards' model and those that are not run.

    With all models it is enough to run the study again from that alone.
    """
    study = config["studies"][wildcards.study]
    models = {
        model: settings
        for model, settings in study["models"].items()
        if model == wildcards.model or not rows_of(wildcards.study, model)
    }
    variants = {name: config["variants"][name] for name in study["variants"]}
    for backend in sorted({variant["backend"] for variant in variants.values()}):
        # What a row in reduced precision is compared with, whether the study lists it or not.
        for name in variants_with(backend=backend, precision="fp32"):
            variants.setdefault(name, config["variants"][name])
    for name in list(variants):
        quantized = quantized_as(name)
        variants.setdefault(quantized, config["variants"][quantized])
    used = {variant.get("calibration") for variant in variants.values()}
    return json.dumps(
        {
            "study": wildcards.study,
            "variants": variants,
            "tools": config["tools"],
            "recipes": {
                name: steps for name, steps in config["recipes"].items() if name in used
            },
            "studies": {wildcards.study: study | {"models": models}},
        }
    )


def address(wildcards) -> str:
    """The address of a download, with what is known of its SHA-256."""
    download = FETCHED[wildcards.download]
    known = f"#sha256={download.sha256}" if download.sha256 else ""
    return f"{download.url}{known}"


def unpacked_folders() -> list[str]:
    """What is taken from archives as a folder of images."""
    return [content for content, (key, _) in UNPACKED.items() if key == "images"]


def unpacked_files() -> list[str]:
    """What is taken from archives as a file."""
    return [content for content, (key, _) in UNPACKED.items() if key != "images"]


def archive(wildcards) -> str:
    """Input function: the archive that `content` is taken from."""
    return f"{DOWNLOADS}/{UNPACKED[wildcards.content][1].file}"


def member(wildcards) -> str:
    """The path of `content` in its archive."""
    return UNPACKED[wildcards.content][1].member


def of_the_study() -> list[str]:
    """All that is fetched for the study that is run."""
    study = config["studies"][config["study"]]
    models = {model: study["models"][model] for model in models_of(config["study"])}
    wanted = find_downloads(study | {"models": models})
    contents = [f"{DOWNLOADS}/{found.content}" for _, found in wanted]
    chosen = [f"results/{config['study']}/calibration_images"] + [
        DISTILLATION_IMAGES.format(study=config["study"], people=people)
        for people in sorted({DISTILLED.get(row, 0) for row in study["variants"]} - {0})
    ]
    if "synthetic" in study["dataset"]:
        return contents
    if "images" not in study["dataset"]["train"]:
        contents += chosen
    if "images" not in study["dataset"]["val"]:
        subset = subset_of(config["study"])
        contents.append(f"results/{config['study']}/{subset}evaluation_images")
    return contents


def described(wildcards) -> dict[str, str]:
    """Input function: what the description of a network is read from."""
    if wildcards.model in models_from("ncnn"):
        return {}
    if wildcards.model in models_from("onnx"):
        return {"onnx": f"{RESULTS.format(**wildcards)}/onnx/exported.onnx"}
    return {"config": model_file("config")(wildcards)}


def description_options(wildcards, input) -> str:
    """Options that name what the description is read from, and what the configuration says of a user's network."""
    if wildcards.model in models_from("mmpose"):
        return f"--config {shlex.quote(input.config)}"
    settings = config["studies"][wildcards.study]["models"][wildcards.model]
    elsewhere = {"source", "architecture", "license", "gmac", "published"}
    elsewhere |= {"onnx", "param", "bin", "input", "outputs"}
    told = {key: value for key, value in settings.items() if key not in elsewhere}
    if settings["source"] == "ncnn":
        return f"--ncnn-settings {shlex.quote(json.dumps(told))}"
    return f"--onnx {input.onnx} --onnx-settings {shlex.quote(json.dumps(told))}"


def blob_options(wildcards) -> str:
    """Options that name the input and the outputs of a user's ncnn network, as far as the configuration does."""
    settings = config["studies"][wildcards.study]["models"][wildcards.model]
    given = ["--input", settings["input"]] if "input" in settings else []
    given += ["--decoded", *settings["outputs"]] if "outputs" in settings else []
    return shlex.join(given)


def to_quantize(wildcards) -> dict[str, str]:
    """Input function: the float network that ncnn2int8 gets, and the record of the step that made it."""
    folder = RESULTS.format(**wildcards)
    if wildcards.variant in OFFICIAL:
        network = f"{folder}/converted/ncnn-fp32"
        return {
            "param": f"{network}.param",
            "bin": f"{network}.bin",
            "record": f"{network}.json",
        }
    own = f"{folder}/{wildcards.variant}"
    return {
        "param": f"{own}/prepared.param",
        "bin": f"{own}/prepared.bin",
        "record": f"{own}/recipe.json",
    }


def float_network(wildcards) -> dict[str, str]:
    """Input function: the float network that has the layers of the variant's INT8 network, one by one."""
    folder = RESULTS.format(**wildcards)
    official = wildcards.variant in OFFICIAL
    network = (
        f"{folder}/converted/ncnn-fp32"
        if official
        else f"{folder}/{wildcards.variant}/reference"
    )
    return {"param": f"{network}.param", "bin": f"{network}.bin"}


def recipe(wildcards) -> str:
    """The steps of the variant's recipe, as JSON."""
    name = config["variants"][wildcards.variant]["calibration"]
    return json.dumps(config["recipes"][name])


def recipe_or_method(wildcards) -> str:
    """How the variant is calibrated: the name of a method of ncnn2table, or the steps of a recipe as JSON."""
    if wildcards.variant in OFFICIAL:
        return config["variants"][wildcards.variant]["calibration"]
    return recipe(wildcards)


def emulation_state(wildcards) -> str:
    """Parameter: what ARM's emulation was made of. Where it is missing, that ends Snakemake before anything is run."""
    record = ROOT / ".arm" / "setup.json"
    try:
        return json.loads(record.read_text())["made_by"]
    except FileNotFoundError:
        if workflow.is_main_process:
            logger.error(
                f"ARM is not emulated here yet: {record} is missing. Set it up with `make arm` (once; nothing is "
                "installed into the system), then run the same command again."
            )
            sys.exit(1)
        raise


def on_arm(wildcards):
    """The wildcards with the people whom a study's networks are run on on emulated cores."""
    chosen = config["studies"][wildcards.study]["arm"]
    subset = SUBSET.format(people=chosen["people"], seed=chosen["seed"])
    return type(wildcards)(
        fromdict={**wildcards, "subset": subset, "shard": 1, "shards": 1}
    )


def to_emulate(wildcards) -> dict[str, str | list[str]]:
    """Input function: the people to run a network on on an emulated core, and their crops."""
    emulation_state(wildcards)
    wanted = on_arm(wildcards)
    return {**evaluation_set(wanted), "crops": CROPS.format(**wanted)}


def to_certify_arm(wildcards) -> dict[str, str | list[str]]:
    """Input function: what an INT8 network predicts on x86 and on emulated cores, and FP32 on x86."""
    emulation_state(wildcards)
    wanted = on_arm(wildcards)
    full = {**wanted, "variant": fp32_variant(wildcards)}
    cores = config["studies"][wildcards.study]["arm"]["cores"]
    folders = [f"{ARM}/{core}".format(**wildcards) for core in cores]
    return {
        "predictions": f"{SHARDS}.npz".format(**wanted),
        "reference": f"{SHARDS}.npz".format(**full),
        "emulated": [f"{folder}/predictions.npz" for folder in folders],
        "comparisons": [f"{folder}/comparison.json" for folder in folders],
        "annotations": evaluated_annotations(wanted),
    }


def device_rows(study: str, model: str) -> list[str]:
    """The rows of a model that devices run: those of ncnn on the CPU."""
    on_cpu = variants_with(backend="ncnn")
    return [row for row in rows_of(study, model) if row in on_cpu]


def device_models(study: str) -> list[str]:
    """The models of a study that have such rows."""
    return [model for model in models_of(study) if device_rows(study, model)]


def device_artifacts(wildcards) -> list[str]:
    """Input function: the files of all rows of a model that devices run."""
    rows = device_rows(wildcards.study, wildcards.model)
    files = [file for row in rows for file in artifact_of(row, wildcards)]
    return list(dict.fromkeys(files))


def device_rows_options(wildcards, *before: str) -> str:
    """Options that name all rows of a model that devices run, each with some words before it."""
    words = [
        [
            *before,
            row,
            config["variants"][row]["precision"],
            *artifact_of(row, wildcards),
        ]
        for row in device_rows(wildcards.study, wildcards.model)
    ]
    return " ".join(f"--row {shlex.join(row)}" for row in words)


def of_each_model(wildcards) -> list:
    """The wildcards of a device with each model, and with the people whom it is measured on."""
    chosen = config["devices"][wildcards.device]
    if workflow.is_main_process and not device_models(wildcards.study):
        logger.error(
            f"studies.{wildcards.study}: no model has a row of ncnn on the CPU, which is what devices run. Add one to "
            "its variants, such as ncnn."
        )
        sys.exit(1)
    subset = SUBSET.format(people=chosen["people"], seed=chosen["seed"])
    return [
        type(wildcards)(fromdict={**wildcards, "model": model, "subset": subset})
        for model in device_models(wildcards.study)
    ]


def to_measure(wildcards) -> dict[str, list[str]]:
    """Input function: what a device gets. Where a core is to be emulated and cannot be, that ends Snakemake."""
    if wildcards.device in EMULATED:
        emulation_state(wildcards)
    wanted = of_each_model(wildcards)
    return {
        "networks": [f"{TO_DEVICES}/networks.zip".format(**one) for one in wanted],
        "people": [
            f"{TO_DEVICES}/{{subset}}people.npz".format(**one) for one in wanted
        ],
    }


def device_settings(wildcards) -> str:
    """The settings of a device, as JSON, without those that say whom it is measured on, and what for."""
    settings = config["devices"][wildcards.device]
    elsewhere = ("people", "seed", "target", "results")
    return json.dumps(
        {key: value for key, value in settings.items() if key not in elsewhere}
    )


def device_way(wildcards) -> str:
    """The settings that say how a device is reached, as JSON: all that it takes to ask what it is."""
    settings = config["devices"][wildcards.device]
    ways = ("ssh", "ssh_options", "python", "folder")
    return json.dumps({key: settings[key] for key in ways if key in settings})


def device_core(wildcards) -> str:
    """The core that is emulated in place of a device."""
    return config["devices"][wildcards.device]["core"]


def core_option(wildcards) -> str:
    """Option that names the core that a device is, if it is emulated."""
    return f"--core {device_core(wildcards)}" if wildcards.device in EMULATED else ""


def device_jobs_options(wildcards, input) -> str:
    """Options that name what a device gets of each model."""
    jobs = zip(device_models(wildcards.study), input.networks, input.people)
    return " ".join(f"--job {shlex.join(job)}" for job in jobs)


def device_results(wildcards) -> list[str]:
    """What a device gave back, the file of each model. What is to be made by hand and is missing ends Snakemake."""
    models, device = device_models(wildcards.study), wildcards.device
    if device in OVER_SSH + EMULATED:
        return [
            f"{DEVICE}/measured/{model}.zip".format(**wildcards) for model in models
        ]
    files = [f"{config['devices'][device]['results']}/{model}.zip" for model in models]
    gets = to_measure(wildcards)
    for file, networks, people in zip(files, gets["networks"], gets["people"]):
        if workflow.is_main_process and not Path(file).is_file():
            logger.error(
                f"devices.{device}.results: {file}: no such file. Make {networks} and {people}, copy them to the device "
                f"with {ROOT}/scripts/posequant/devices/runner.py, run there `python runner.py --package networks.zip "
                f"--people people.npz --out {Path(file).name}`, and copy that file here."
            )
            sys.exit(1)
    return files


def to_score(wildcards) -> dict[str, str | list[str]]:
    """Input function: what a device gave back, and whom it is scored on."""
    wanted = of_each_model(wildcards)
    measured_here = wildcards.device in OVER_SSH + EMULATED
    return {
        "measured": (
            f"{DEVICE}/measured".format(**wildcards)
            if measured_here
            else device_results(wildcards)
        ),
        "people": to_measure(wildcards)["people"],
        "models": [f"{RESULTS}/model.json".format(**one) for one in wanted],
        "artifacts": [file for one in wanted for file in device_artifacts(one)],
        "annotations": evaluated_annotations(wanted[0]),
        "detections": detections(wildcards),
    }


def device_models_options(wildcards, input) -> str:
    """Options that name each model, what the device got of it, and what it gave back."""
    models = zip(
        device_models(wildcards.study),
        input.models,
        input.people,
        device_results(wildcards),
    )
    return " ".join(f"--model {shlex.join(model)}" for model in models)


def all_device_rows_options(wildcards) -> str:
    """Options that name all rows of all models that devices run."""
    return " ".join(
        device_rows_options(one, one.model) for one in of_each_model(wildcards)
    )


def device_pages(wildcards) -> list[str]:
    """Input function: the pages of the devices that the report of a study shows."""
    named = config["studies"][wildcards.study]["devices"]
    return [
        f"{DEVICE}/result.md".format(study=wildcards.study, device=device)
        for device in named
    ]


def device_of_target(wildcards) -> list[str]:
    """Input function: what the device is that a study names as its target, unless the configuration says its target."""
    device = config["studies"][wildcards.study]["target"]
    if device not in config["devices"] or "target" in config["devices"][device]:
        return []
    return [f"{DEVICE}/facts.json".format(study=wildcards.study, device=device)]


def target_options(wildcards, input) -> str:
    """Options that say what the networks of a study are to run on."""
    target = config["studies"][wildcards.study]["target"]
    if input.device:
        return f"--device {input.device}"
    return f"--target {config['devices'].get(target, {}).get('target', target)}"


def flip_test_option(wildcards) -> str:
    """Option that says whether the study's protocol has a flip test."""
    protocol = config["studies"][wildcards.study]["protocol"]
    return "--flip-test" if protocol["flip_test"] else ""


def all_cores() -> int:
    """All cores of a local run: a job that measures time has them to itself, whatever it uses of them.

    On a cluster nobody says how many there are; there a profile gives such a job a node of its own.
    """
    return workflow.resource_settings.cores or PREDICTION_THREADS


def latency_rows(wildcards) -> dict[str, list[str]]:
    """What is said of each row of a model to measure its latency: name, backend, precision and files."""
    names = rows_of(wildcards.study, wildcards.model)
    variants = {name: config["variants"][name] for name in names}
    return {
        name: [
            name,
            variant["backend"],
            variant["precision"],
            *artifact_of(name, wildcards),
        ]
        for name, variant in variants.items()
    }


def latency_reference(wildcards) -> list[str]:
    """Input function: the files of the network that the rows of a model are timed against."""
    folder = RESULTS.format(**wildcards)
    if wildcards.model in models_from("ncnn"):
        return [f"{folder}/converted/ncnn-fp32.{ending}" for ending in ("param", "bin")]
    return [f"{folder}/onnx/simplified.onnx"]


def latency_artifacts(wildcards) -> list[str]:
    """Input function: the files of all rows of a model."""
    files = [file for row in latency_rows(wildcards).values() for file in row[3:]]
    return list(dict.fromkeys(files))


def latency_memory(wildcards, input, attempt) -> int:
    """Memory for all networks of a model at once, in MB: what a runtime makes of its files is up to four times as large."""
    return attempt * max(4000, 4 * input.size_mb)


def latency_options(wildcards) -> str:
    """Options that name all rows of a model."""
    rows = latency_rows(wildcards)
    named = " ".join(f"--row {shlex.join(row)}" for row in rows.values())
    return named + vulkan_option(rows)


def prunable() -> list[str]:
    """Patterns of the files, beside crops, that the study that is run needs no more once it is finished."""
    row = f"{RESULTS}/{{variant}}".format(study=config["study"], model="*", variant="*")
    archives = {
        f"{DOWNLOADS}/{found.file}"
        for _, found in find_downloads(config["studies"][config["study"]])
        if found.is_archive and unpacked(found.file)
    }
    return [
        f"{row}/shards/**/*.npz",
        f"{row}/prepared.*",
        f"{row}/reference.*",
        *sorted(archives),
    ]


def unpacked(file: str) -> bool:
    """Whether all that any study takes from an archive has been taken out."""
    return all(
        Path(DOWNLOADS, content).exists()
        for content, (_, download) in UNPACKED.items()
        if download.file == file
    )
