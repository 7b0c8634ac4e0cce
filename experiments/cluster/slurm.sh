#!/bin/bash
# Eight processes, each with a GPU, work on one search:
#
#     KMTL_STORAGE=postgresql+psycopg://USER:PASSWORD@HOST/kmtl sbatch slurm.sh
#
# More of them may be added while it runs, by the same command.
#SBATCH --job-name=kmtl-search
#SBATCH --array=0-7
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --gres=gpu:1
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --output=%x-%A_%a.log

set -euo pipefail
: "${KMTL_STORAGE:?must be the URL of a database that all nodes reach}"
# On a file system that all nodes see: checkpoints are there.
folder=${KMTL_FOLDER:-$SLURM_SUBMIT_DIR/searches}

# Ends ten minutes before the time limit; submitted again, it goes on.
srun python search.py --storage "$KMTL_STORAGE" --directory "$folder" --name digits --trials 200 --minutes 230
