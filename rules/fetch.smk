# What a study starts from.


# Downloads are shared between studies. Their rules do not name their code: an edit of it must not fetch anything
# again. A file whose hash is known comes last, and counts where two keys name it.
FETCHED = {
    download.file: download
    for _, download in sorted(downloads, key=lambda named: named[1].sha256)
}
UNPACKED = {
    download.content: (key, download)
    for key, download in downloads
    if download.is_archive
}


rule fetch:
    """Fetch all that the study needs, and no more: for a machine that has no network later."""
    input:
        of_the_study(),


rule download:
    """Download a file, whole and checked; what broke off goes on where it stopped."""
    output:
        f"{DOWNLOADS}/{{download}}",
    log:
        f"{DOWNLOADS}/{{download}}.log",
    wildcard_constraints:
        download=any_of(FETCHED),
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(500),
        runtime=growing(240),
    params:
        address=address,
    shell:
        'python "$SCRIPTS"/download.py {params.address:q} --out {output:q} > {log:q} 2>&1'


rule unpack_file:
    """Take a file out of a downloaded archive."""
    input:
        archive,
    output:
        f"{DOWNLOADS}/{{content}}",
    log:
        f"{DOWNLOADS}/{{content}}.log",
    wildcard_constraints:
        content=any_of(unpacked_files()),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(500),
        runtime=growing(30),
    params:
        member=member,
    shell:
        'python "$SCRIPTS"/unpack.py --archive {input:q} --member {params.member:q}'
        " --out {output:q} > {log:q} 2>&1"


use rule unpack_file as unpack_folder with:
    output:
        directory(f"{DOWNLOADS}/{{content}}"),
    wildcard_constraints:
        content=any_of(unpacked_folders()),


rule calibration_images:
    """Fetch the training images of the people chosen for calibration, and no others."""
    input:
        calibration="results/{study}/calibration.json",
        annotations=dataset("train", "annotations"),
    output:
        directory("results/{study}/calibration_images"),
    log:
        "results/{study}/calibration_images.log",
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    shell:
        'python "$SCRIPTS"/calibration_images.py --calibration {input.calibration}'
        " --annotations {input.annotations:q} --out {output} > {log} 2>&1"


rule evaluation_images:
    """Fetch the images to evaluate on one by one, and of a subset no others."""
    input:
        annotations=evaluated_annotations,
    output:
        directory("results/{study}/{subset}evaluation_images"),
    log:
        "results/{study}/{subset}evaluation_images.log",
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    shell:
        'python "$SCRIPTS"/evaluation_images.py --annotations {input.annotations:q}'
        " --out {output} > {log} 2>&1"


rule distillation_images:
    """Fetch the training images of the people chosen to distill on, but for those that are there."""
    input:
        chosen=DISTILLATION,
        annotations=dataset("train", "annotations"),
        known="results/{study}/calibration_images",
    output:
        directory(DISTILLATION_IMAGES),
    log:
        f"{DISTILLATION_IMAGES}.log",
    wildcard_constraints:
        people=r"\d+",
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    shell:
        'python "$SCRIPTS"/calibration_images.py --calibration {input.chosen}'
        " --annotations {input.annotations:q} --known {input.known} --out {output} > {log} 2>&1"
