"""What `pytest` leaves out unless KMTL_THOROUGH=1: the variants that take longest.

Most of a test's time goes into tracing and compiling a model, so where a test runs for
many methods, a few stand for all of them by default: one for each mechanism, and what
others stand on. One test that takes long by its nature is marked
`@pytest.mark.thorough` where it stands; here are only choices among variants.

A pattern is that of `fnmatch` on `FILE::TEST[VARIANT]`, FILE without `tests/`; brackets
are plain characters here.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

#: Test -> the variants that are kept, on both backends.
KEPT = {
    "training/test_runs.py::test_epochs_that_end_anywhere*": ["endless"],
    "tuning/test_auto_baselines.py::test_single_tasks_have_the_trials_steps": [
        "arrays"
    ],
    "tuning/test_auto_baselines.py::test_single_tasks_see_of_a_mixture*": ["True"],
    "tasks/test_ctc.py::test_padding_of_the_input_is_left_out": ["strided"],
    "inputs/test_sequences.py::test_longer_padding_changes_no*": [
        *("mmoe", "fused experts"),
    ],
    "backbones/test_ft_transformer.py::test_plain_keras_and_files*": ["hard"],
    "training/test_transferring.py::test_a_task_more*": ["[!t]*"],
    "contract/test_contract.py::test_training_a_trunk": [
        *("mlp-hard", "mlp-cross_stitch", "cnn-mmoe", "transformer-hard"),
    ],
    "backbones/test_sequences.py::test_padding_changes_nothing": [
        *("conv1d-hard", "conv1d-mtan", "rnn-mmoe", "tcn-hard", "transformer-hard"),
    ],
    "backbones/test_sequences.py::test_plain_keras_computes_the_same": [
        *("conv1d", "rnn", "transformer"),
    ],
    "contract/test_contract.py::test_task": [
        *("*check_[!t]*", "classification-*", "segmentation-*", "distribution-*"),
        *("tagging-*", "custom-*"),
    ],
    "data/test_generators.py::test_fit_and_evaluate_take_them": ["from_generator"],
    "export/test_saved_model.py::test_a_reconstruction_with_another_loss*": ["c*"],
    "sharing/test_conditioned.py::test_frozen_trunk_from_a_pretrained*": ["lora"],
    "sharing/test_conditioned.py::test_trains_and_survives": ["adapters"],
    "sharing/test_conditioned.py::test_training_with_what_is_added*": ["film"],
    "sharing/test_distillation.py::test_training_saving_and*": ["scheme0"],
    "sharing/test_expert_schemes.py::test_plain_model_computes_the_same": ["ple"],
    "sharing/test_expert_schemes.py::test_any_image_size_and_vectors": ["ple"],
    "test_serialization.py::test_keras_loads_a_kmtl_layer_in_a_new_process": [
        "import kmtl, keras"
    ],
    "tasks/test_dense_regression.py::test_training_on_maps_with_holes": ["1"],
    "training/test_absent_heads.py::test_no_optimizer_moves_an_absent_task*": [
        *("Adam-*", "Adafactor-True", "Muon-*"),
    ],
    "training/test_absent_heads.py::test_moving_statistics_of*": ["pcgrad-None"],
    "training/test_absent_heads.py::test_momentum_decay_and_regularisers*": ["adamw"],
    "training/test_absent_heads.py::test_beyond_a_stopped*": ["predictions"],
    "training/test_gradient_weightings.py::test_low_memory_gives_the_same_update": [
        *("pcgrad", "upgrad"),
    ],
    "training/test_gradient_weightings.py::test_parameters_level_subtracts*": [
        *("moco", "upgrad"),
    ],
    "training/test_gradient_weightings.py::test_compiled_with_a_partial_batch": [
        "moco"
    ],
    "training/test_gradient_weightings.py::test_accumulated_steps*": ["parameters"],
    "training/test_gradient_weightings.py::test_an_absent_task_is_left_out*": ["moco"],
    "training/test_frozen.py::test_one_task_has_nothing_to_balance": ["[!ck]*"],
    "training/test_precision.py::test_weights_really_move*": ["mixed_float16"],
    "training/test_floatx.py::test_a_model_in_float64_trains": ["moco"],
    "training/test_frozen.py::test_a_model_frozen_whole_stays_as_it_is": ["*pcgrad*"],
    "training/test_rate_factors.py::test_a_step_is_that_of_an_optimizer*": [
        *("Adam", "Muon", "SGD"),
    ],
    "tuning/test_resume.py::test_killed_at_any_entry_a_search_ends_the_same": ["False"],
    "tuning/test_resume.py::test_another_search_in_the_same_folder*": [
        "changes[05]*",
    ],
    "tuning/test_search_files.py::test_a_disk_that_fails_for*": ["error[02]"],
    "tuning/test_space_parts.py::test_schedule_and_batch_size*": ["2"],
    "tuning/test_stopping.py::test_pruned_trials_are_no_failures": ["asha", "optuna"],
    "tuning/test_results.py::test_every_tuner_takes_several_goals": ["*BayesianO*"],
    "weighting/test_auto_lambda.py::test_the_gradient_is_that_of*": [
        "momentum-primary1",
    ],
    "weighting/test_gradient_contract.py::test_eager_and_compiled_agree*": [
        *("upgrad", "cagrad", "gradnorm"),
    ],
    "weighting/test_gradient_contract.py::test_defined_for_all_gradients*": [
        *("*-5", "upgrad-1", "pcgrad-64", "*-4"),
    ],
    "sharing/test_hierarchical.py::test_training_saving_and_plain*": ["features"],
    "layers/test_deep_supervision.py::test_loss_and_logs": ["pcgrad"],
    "export/test_formats.py::test_several_inputs_by_name*": ["onnx"],
    "export/test_units.py::test_units_and_best_classes": ["tf_saved_model"],
    "relations/test_relations.py::test_a_step_adds*": ["pcgrad"],
    "weighting/test_gradient_properties.py::test_weights_lie*": ["moco", "cr_mogm"],
    "export/test_saved_model.py::test_half_precision_models*": ["mixed_float16"],
}
#: Tests whose matter others touch, too: what they hold in particular is held by
#: KMTL_THOROUGH=1.
LONG = [
    "backbones/test_ft_transformer.py::test_it_learns_what_one_column*",
    "experiments/test_tables.py::test_fast_mode_of_the_recipe",
    "experiments/test_search_spaces.py::test_rules_are_weighed*",
    "tuning/test_gaussian.py::test_the_first_points_are_spread",
    "tuning/test_confirm.py::test_a_search_that_finds_nothing*",
    "tuning/test_resume.py::test_a_folder_of_kerastuner_itself*",
    "tabular/test_fit_table.py::test_parts_are_of_different_rows",
    "tuning/test_auto_baselines.py::test_turns_of_epochs*",
    # README's command runs the whole job, in every run.
    "test_quickstart.py::test_every_stage*",
    "test_quickstart.py::test_results_are_whole",
    "test_quickstart.py::test_saved_files*",
    "test_quickstart.py::test_finished_run*",
    "test_quickstart.py::test_more_trials*",
    "test_quickstart.py::test_what_was_deleted*",
    "test_quickstart.py::test_other_settings*",
    "test_quickstart.py::test_another_backend*",
    "test_quickstart.py::test_fresh_deletes*",
    "training/test_distribution.py::*",
    "training/test_executions.py::test_numbers*",
    "training/test_gradient_weightings.py::test_state_is_saved*",
    "training/test_transferring.py::test_a_task_more*cross_stitch*",
    "tasks/test_kinds_of_rows.py::test_expected*",
    "tasks/test_crf.py::test_padded*",
    "tasks/test_text_generation.py::test_greedy*",
    "combining/test_distilling.py::test_the_student*",
    "tuning/test_search_files.py::test_a_disk_that_is_full*",
    "tuning/test_reuse.py::test_equals_a_new_model*",
    "tuning/test_tuners.py::test_canary*",
    "export/test_raw_inputs.py::test_an_export_takes_columns",
    "relations/test_relations.py::test_signs_of_relations",
    "tasks/test_kinds_of_steps.py::test_saved_and_exported",
    "training/test_saving.py::test_fresh_processes",
    "tuning/test_search.py::test_an_interrupted_trial*",
    "tuning/test_search_files.py::test_a_failure_at_any_step_of_overwriting*",
    "test_docstrings.py::test_examples[[]kmtl.tuning.tuners]",
    "backbones/test_applications.py::test_mobilenet_from_a_file_of_weights",
    "data/test_idx.py::test_through_tfds",
    "experiments/test_census_income.py::test_the_real_set",
    "experiments/test_census_income.py::test_sizes_are_about_equal",
    "experiments/test_nyuv2_scenes.py::test_the_official_split",
    "sharing/test_adashare.py::test_hardened_model",
    "sharing/test_learning_to_branch.py::test_hardened_model*",
    "sharing/test_expert_schemes.py::test_gates_belong_to_their_task*",
    "sharing/test_expert_schemes.py::test_saved_while_training*",
    "sharing/test_search.py::test_a_model_that_is_used_again*",
    "tasks/test_numbers.py::test_learned_in_the_labels_unit_and_exported",
    "tasks/test_tagging.py::test_intent_and_slots_on_one_trunk",
    "training/test_depth_per_task.py::test_own_blocks_move_by_their_task_alone",
    "training/test_memory.py::test_no_graph_outlives*",
    "training/test_rate_factors.py::test_saved_with_the_model",
    "training/test_runs.py::test_seeded_tf_data_continues*",
    "tuning/test_reuse.py::test_the_weights_by_data_are_counted_again",
    "tuning/test_reuse.py::test_after_a_training_that_diverged",
    "weighting/test_auto_lambda.py::test_every_fit_takes_its_own*",
    "weighting/test_auto_lambda.py::test_saved_without_its_data",
    "experiments/test_gpu_run.py::test_a_stage_in_small",
    "export/test_saved_model.py::test_command_line_tool_shows_and_runs_it",
    "export/test_verify.py::test_half_precision_has_its_own_tolerance",
    "layers/test_deep_supervision.py::test_two_replicas_equal_one*",
    "sharing/test_extraction.py::test_without_shared_experts_tasks_are_independent",
    "experiments/test_weighting_experiments.py::test_toy_fast_mode",
    "inputs/test_doors.py::test_a_search_prepares_once",
    "sharing/test_mmoe.py::test_one_expert_is_hard_sharing",
    "sharing/test_mtan.py::test_training_in_half_precision",
    "sharing/test_nddr.py::test_training_in_half_precision",
    "sharing/test_replicas.py::test_two_replicas_equal_one*",
    "sharing/test_search.py::test_a_search_over_schemes",
    "sharing/test_sluice.py::test_training_in_half_precision",
    "sharing/test_sparse_experts.py::test_selection_becomes_sparse",
    "sharing/test_tree.py::test_trains_and_survives",
    "test_devices.py::test_replicas_of_a_strategy_and_nothing_initialised",
    "test_docstrings.py::test_examples[[]kmtl.data.containers]",
    "test_docstrings.py::test_examples[[]kmtl.export.verify]",
    "test_docstrings.py::test_examples[[]kmtl.tabular.fitting]",
    "test_docstrings.py::test_examples[[]kmtl.testing.*]",
    "test_docstrings.py::test_examples[[]kmtl.weighting.auto_lambda]",
    "training/test_memory.py::test_a_pool_of_models_keeps*",
    "training/test_runs.py::test_interrupted_run_ends_exactly*",
    "tuning/test_confirm.py::test_the_best_models_as_one",
    "tuning/test_confirm.py::test_averages_are_judged_as_trials",
    "training/test_recipe.py::test_many_rows*",
    "tuning/test_confirm.py::test_fresh_seeds_are_those_of_no_execution",
    "tuning/test_no_number.py::test_inputs_in_a_list",
    "tuning/test_population.py::test_what_cannot_trains_one_at_a_time",
    "tuning/test_resume.py::test_bayesian_search_killed_at_any_entry_ends_the_same",
    "tuning/test_resume.py::test_the_same_program_goes_on*",
    "tuning/test_reuse.py::test_first_epoch_and_batch_size*",
    "tuning/test_reuse.py::test_one_step_per_call_where_a_callback_sees_batches",
    "tuning/test_reuse.py::test_rate_per_block_and_executions",
    "tuning/test_study.py::test_conditional_hyperparameters_are_kept_apart",
    "tuning/test_tuners.py::test_bayesian_search_finds_the_planted_optimum",
    "tuning/test_workers.py::test_kerastuners_own_chief_and_worker_take_our_hypermodel",
    "tuning/test_workers.py::test_workers_share_a_search_and_may_die",
    "tuning/test_workers.py::test_workers_know_the_baselines_that_auto_stands_for",
    "weighting/test_auto_lambda.py::test_half_precision*",
    "weighting/test_auto_lambda.py::test_ways_to_run_agree*",
    "weighting/test_auto_lambda.py::test_the_primary_task_gains_and_noise_stays_behind",
    "export/test_preprocessing.py::test_the_export_takes_strings*",
    "export/test_raw_inputs.py::test_verification_sees*",
    "export/test_saved_model.py::test_float_model_takes_uint8_images",
    "evaluation/test_baselines.py::test_models_of_all_tasks_see*",
    "evaluation/test_baselines.py::test_tf_data_with_masks*",
    "experiments/test_tables.py::test_fast_mode",
    "inputs/test_end_to_end.py::test_an_export*",
    "inspection/test_costs.py::test_parameters_of_every_scheme*",
    "tuning/test_confirm.py::test_a_trial_is_scored_on_every_fold",
    "tuning/test_hypermodel.py::test_a_seed_decides*",
    "tuning/test_hypermodel.py::test_kerastuners_own_tuner*",
    "tuning/test_search.py::test_the_best_model_scores_what_its_trial_did*",
    "test_quickstart.py::test_what_is_finished_is_not_repeated",
    "training/test_runs.py::test_more_epochs_continue_a_finished_run",
    "training/test_runs.py::test_failure_while_saving_leaves*",
    "training/test_runs.py::test_another_model_is_refused",
    "training/test_runs.py::test_logs_for_tensorboard",
    "training/test_saving.py::test_untrained_and_uncompiled",
    "tuning/test_search_files.py::test_kills_count_that_follow*",
    "export/test_verify.py::test_other_weights_are_noticed*",
    "tasks/test_kinds_of_steps.py::test_learned",
    "sharing/test_learning_to_branch.py::test_trains_survives*",
    "sharing/test_adashare.py::test_trains_and_survives",
    "training/test_precision.py::test_execution_options*",
    "sharing/test_extraction.py::test_without_task_experts_cgc*",
    "evaluation/test_baselines.py::test_scores_are_those_of_the_stored*",
    "training/test_recipe.py::test_inputs_that_are_their_own_targets",
    "training/test_rate_factors.py::test_a_factor_of_zero*",
    "training/test_model.py::test_weights_by_data",
    "sharing/test_mtan.py::test_saving*",
    "sharing/test_nddr.py::test_saving*",
    "sharing/test_sluice.py::test_saving*",
    "sharing/test_cross_stitch.py::test_the_stitches_may_learn_faster*",
    "sharing/test_cross_stitch.py::test_training_in_half_precision",
    "sharing/test_expert_schemes.py::test_mixed_precision*",
    "sharing/test_hierarchical.py::test_half_precision",
    "sharing/test_distillation.py::test_half_precision",
    "training/test_gradient_weightings.py::test_double_sampling*",
    "evaluation/test_baselines.py::test_damaged_model_is_trained_again",
    "sharing/test_chains.py::test_on_any_base*",
    "training/test_freezing.py::test_thawed_after_the_optimizer*",
    "tuning/test_resume.py::test_hyperband_goes_on",
    "training/test_depth_per_task.py::test_parameter_level_covers*",
    "data/test_frames.py::test_search",
    "tasks/test_crf.py::test_neighbours_tell*",
    "tasks/test_crf.py::test_the_path_is_exported",
    "tasks/test_kinds_of_rows.py::test_who_and_when",
]
#: Test -> the variants that are kept on TensorFlow; the others run on JAX.
KEPT_ON_TENSORFLOW = {
    "contract/test_contract.py::test_mixed_precision_forward": [
        *("cnn-mixed_float16", "mlp-mixed_float16", "rnn-mixed_float16"),
        *("tabular-mixed_float16", "transformer-mixed_float16"),
    ],
    "contract/test_contract.py::test_relations": ["*check_[!at]*", "mtrl-*"],
    "weighting/test_gradient_contract.py::test_defined_for_all_gradients*": [
        *("upgrad-*", "cagrad-5", "pcgrad-64", "moco-5", "cr_mogm-5"),
    ],
    # Compiled by XLA, which is JAX's only way; without it, all run on TensorFlow.
    "weighting/test_gradient_contract.py::test_contract": [
        *("upgrad-check_compiled", "pcgrad-check_compiled", "moco-check_compiled"),
        "*check_[!c]*",
        *("*check_config", "*check_columns"),
    ],
    "weighting/test_loss_contract.py::test_contract": [
        *("check_compiled-dwa", "check_compiled-famo", "check_compiled-uncertainty"),
        "check_[!c]*",
        "check_config*",
    ],
    # JAX computes in float32, and so do all the tests that train.
    "weighting/test_gradient_golden.py::test_matches_the_same_definition": ["*64"],
}
#: Test -> the variants that are kept on JAX; TensorFlow runs them all.
KEPT_ON_JAX = {
    "training/test_freezing.py::test_under_every_weighting": [
        *("*upgrad*", "*uncertainty*", "*moco*", "*gradnorm*"),
    ],
    "weighting/test_gradient_contract.py::test_contract": [
        *("upgrad-*", "pcgrad-*", "moco-*", "cagrad-check_compiled"),
    ],
    "weighting/test_loss_based.py::test_the_loss_of_an_evaluation*": ["uw_so"],
    "weighting/test_gradient_contract.py::test_defined_for_all_gradients*": [
        *("upgrad-*", "cagrad-*", "nash_mtl-*", "pcgrad-*", "graddrop-*"),
    ],
    "backbones/test_from_keras.py::test_what_is_frozen_stays_bit_for_bit": ["1-mgda"],
    "backbones/test_sequences.py::test_plain_keras_computes_the_same": ["conv1d"],
    "contract/test_contract.py::test_backbone": ["cnn-*", "mlp-*", "transformer-*"],
    "contract/test_contract.py::test_task": [
        *("*check_[hv]*", "classification-*", "segmentation-check_l*"),
        *("ordinal-check_l*", "detection-check_l*", "ctc-check_l*"),
    ],
    "contract/test_contract.py::test_training_a_trunk": ["mlp-*"],
    "losses/test_masked.py::test_absent_labels_pull_at_nothing": ["c*"],
    "weighting/test_loss_contract.py::test_contract": [
        *(
            "check_compiled-*",
            "*-uncertainty",
            "check_weights*-dwa",
            "check_[or]*-famo",
        ),
    ],
}
#: Tests that run on TensorFlow alone by default: what they hold is made of `keras.ops`
#: that other tests run on JAX, or of what no backend knows about.
NOT_ON_JAX = [
    "backbones/test_applications.py::*",
    "backbones/test_from_keras.py::test_saved_and_loaded*",
    "backbones/test_from_keras_inputs.py::test_padding_counts*",
    "backbones/test_ft_transformer.py::*",
    "tuning/test_population.py::test_a_search_in_populations*",
    "tuning/test_population_search.py::test_folds*",
    "training/test_metrics_in_fit.py::test_every_entry_point*",
    "training/test_head_groups.py::*",
    "tasks/test_ctc.py::*",
    "tasks/test_crf.py::*",
    "backbones/test_from_keras.py::test_what_layers*",
    "backbones/test_from_keras.py::test_experts*",
    "inputs/test_end_to_end.py::*",
    "weighting/test_loss_based.py::test_golden*",
    "training/test_gradient_weightings.py::test_pairs*",
    "training/test_targets.py::*",
    "training/test_precision.py::*",
    "layers/test_copying.py::*",
    "tabular/*",
    "tasks/test_heads.py::*",
    "tasks/test_reconstruction.py::*",
    "tasks/test_decoders.py::test_[!a]*",
    "tasks/test_dense_regression.py::*",
    "tasks/test_embedding.py::test_losses_of_angles*",
    "tasks/test_numbers.py::*",
    "tasks/test_tagging.py::*",
    "tasks/test_transforms.py::*",
    "tasks/test_soft_labels.py::*",
    "tasks/test_class_names.py::*",
    "tasks/test_ranking.py::*",
    "losses/test_regions.py::*",
    "losses/test_counts.py::*",
    "losses/test_keras_losses.py::*",
    "metrics/test_keras_metrics.py::*",
    "metrics/test_metrics.py::test_auc*",
    "metrics/test_metrics.py::test_mean_iou_is*",
    "export/test_units.py::test_maps*",
    "relations/*",
    "tuning/test_population_search.py::test_hyperbands*",
    "tuning/test_population_search.py::test_a_rule_stops*",
    "tuning/test_reuse.py::*",
    "tuning/test_search.py::*",
    "training/test_guards.py::test_half*",
    "training/test_guards.py::test_validation*",
    "training/test_several_losses.py::test_each*",
    "training/test_several_losses.py::test_saved*",
    "training/test_gradient_weightings.py::test_low_memory*",
    "training/test_gradient_weightings.py::test_what_layers_add*",
    "training/test_gradient_weightings.py::test_mixed_float16*",
    "training/test_joint_losses.py::*",
    "training/test_adversaries.py::test_[!a]*",
    "training/test_one_truth.py::*",
    "training/test_runs.py::test_[!d]*",
    "training/test_saving.py::test_[!a]*",
    "training/test_recipe.py::*",
    "training/test_memory_advice.py::test_fit_names*",
    "training/test_absent_heads.py::test_what_a_group*",
    "training/test_absent_heads.py::test_moving*",
    "training/test_rows_seen.py::*",
    "training/test_task_weights.py::*",
    "training/test_model.py::test_one_head*",
    "training/test_model.py::test_reconstruction_of*",
    "evaluation/test_per_class.py::*",
    "evaluation/test_evaluate.py::test_numbers*",
    "backbones/test_tabular_mlp.py::test_experts*",
    "backbones/test_sequences.py::test_padding*",
    "backbones/test_sequences.py::test_gates*",
    "training/test_absent_heads.py::test_a_step_of_two_batches*",
    "training/test_absent_heads.py::test_no_optimizer_moves*",
    "training/test_all_rows.py::test_agree*",
    "training/test_averaging.py::*",
    "training/test_curriculum.py::test_parts_and_weights*",
    "training/test_freezing.py::test_scores_while*",
    "layers/test_fitted_elsewhere.py::test_trees_of_v*",
    "training/test_curriculum.py::test_a_run_that_was_cut_off*mgda*",
    "training/test_adversaries.py::test_a_run_that_goes_on*",
    "training/test_adversarial_tasks.py::test_the_trunk_unlearns*mgda*",
    "training/test_freezing.py::test_averages_of_weights*",
    "training/test_curriculum.py::test_a_saturated_task*",
    "training/test_adversaries.py::test_every_row_moves*",
    "contract/test_contract.py::test_relations*",
    "metrics/test_metrics.py::test_metric*",
    "training/test_freezing.py::test_frozen_in_the_middle*",
    "training/test_rate_factors.py::test_compiled_as_eagerly*",
    "training/test_runs.py::test_another_configuration*",
    "training/test_runs.py::test_wrong_initial_epoch*",
    "training/test_runs.py::test_damaged_checkpoint*",
    "weighting/test_gradient_solvers.py::test_nonnegative_qp*",
    "inputs/test_sequences.py::*",
    "inputs/test_table.py::test_quantiles_are_those_of_the_scaled_columns",
    "metrics/test_metrics.py::test_auc_equals_sklearn_per_column",
    "test_builders.py::test_uint8_images_are_scaled_in_the_model",
    "metrics/test_text.py::test_bleu*",
    "training/test_model.py::test_a_call_predicts*",
    "combining/test_distilling.py::test_an_old_model*",
    "combining/test_distilling.py::test_teachers*",
    "combining/test_ensembles.py::test_what_each_stage*",
    "tuning/test_auto_baselines.py::test_single_tasks_have_the_trials_callbacks",
    "tuning/test_auto_baselines.py::test_single_tasks_see_of_a_mixture*",
    "inputs/test_doors.py::test_fit_evaluate*",
    "weighting/test_auto_lambda.py::test_the_step_uses*",
    # In float64, and so on TensorFlow; on JAX what is compiled is held by the contract.
    "weighting/test_gradient_golden.py::*",
    "weighting/test_gradient_solvers.py::test_one_sided_jacobi*",
    "backbones/test_applications.py::*",
    "training/test_class_weights.py::*",
    "training/test_gradient_weightings.py::test_an_absent_task_is_left_out*",
    "training/test_gradient_weightings.py::test_features_level_equals*",
    "training/test_gradient_weightings.py::test_parameters_level_subtracts*",
    "training/test_model.py::test_two_models_do_not_mix",
    "training/test_rate_factors.py::test_a_step_is_that_of_an_optimizer*",
    "training/test_several_losses.py::test_they_add_up_over_batches",
    "backbones/test_ensemble.py::*",
    "backbones/test_fusion.py::*",
    "backbones/test_tabular_mlp.py::test_[!e]*",
    "data/test_[!bt]*",
    "data/test_tensorflow_sets.py::test_[!a]*",
    "evaluation/test_common_scale.py::*",
    "evaluation/test_ensemble.py::test_[!p]*",
    "export/test_verify.py::*",
    "test_agreement.py::*",
    "training/test_compile.py::*",
    "training/test_guards.py::test_gradient_weightings_look*",
    "training/test_guards.py::test_a_list_of_callbacks*",
    "training/test_metrics_in_fit.py::test_no_labels_are*",
    "training/test_scale_report.py::*",
    "tuning/test_no_number.py::*",
    "backbones/test_from_keras.py::test_each_task_has_the_net_at_any_depth[[][01]]",
    "backbones/test_from_keras.py::test_saved_and_loaded_with_what_it_learned",
    "backbones/test_image_trunks.py::*",
    "tasks/test_decoders.py::test_[!aft]*",
    "contract/test_contract.py::test_mixed_precision_forward*",
    "contract/test_contract.py::test_the_first_check_that_fails_is_named",
    "data/test_bundled.py::test_plugs_into_builders_and_fit",
    "evaluation/test_baselines.py::*",
    "layers/test_dropout.py::test_training_at_rate_0_is_training_without_dropout",
    "sharing/*",
    "tasks/test_custom.py::test_saved*",
    "training/test_absent_heads.py::test_momentum_decay_and_regularisers*",
    "training/test_absent_heads.py::test_beyond_a_stopped_gradient*",
    "training/test_depth_per_task.py::*",
    "training/test_frozen.py::*",
    "training/test_metrics_in_fit.py::test_one_class_has_no_auc",
    "training/test_metrics_in_fit.py::test_no_number_is_no_best_value",
    "training/test_model.py::test_nothing_labelled_moves_nothing_but_decay",
    "training/test_model.py::test_evaluate_in_every_form_of_data",
    "weighting/test_gradient_properties.py::*",
    "evaluation/test_evaluate.py::test_every_form_of_data*",
    "metrics/test_metrics.py::test_auc_of_logits_of_any_size*",
    "metrics/test_metrics.py::test_r2_equals_sklearn",
    "tasks/test_labels.py::test_[!r]*",
    "training/test_model.py::test_loss_report_adds_up",
    "training/test_model.py::test_reconstruction_without_labels",
    "training/test_model.py::test_sample_weights",
]


#: Where TensorFlow runs step by step, without a graph: making the graph of a step takes
#: longer than the few steps of a test. Graphs are what the other rooms test (contract,
#: export, tasks, weighting and more), and the README; with KMTL_THOROUGH=1 all rooms.
EAGER = (
    *("combining/*", "data/*", "evaluation/*", "inputs/*", "sharing/*", "training/*"),
    *("tuning/*", "test_agreement.py*", "test_docstrings.py*", "test_properties.py*"),
    *("tasks/*", "backbones/*"),
)
#: What is about graphs, in these rooms.
COMPILED = [
    "training/test_gradient_weightings.py*",
    "training/test_model.py*",
    "tuning/test_reuse.py::test_steps_are_counted",
    "tasks/test_kinds_of_rows.py*",  # train for longer than a graph takes to make
]


def runs_eagerly(test: str) -> bool:
    """Whether TensorFlow runs `FILE::TEST[VARIANT]` without graphs."""
    return _any(test, EAGER) and not _any(test, COMPILED)


def left_out(test: str, backend: str) -> bool:
    """Whether `FILE::TEST[VARIANT]` is one that the default run leaves out."""
    if _any(test, LONG) or (backend == "jax" and _any(test, NOT_ON_JAX)):
        return True
    name, variant = _split(test)
    return any(
        _any(name, [pattern]) and not _any(variant, kept)
        for table in (KEPT, KEPT_ON_JAX if backend == "jax" else KEPT_ON_TENSORFLOW)
        for pattern, kept in table.items()
    )


def without_a_test(tests: Iterable[str]) -> list[str]:
    """The patterns above that fit none of these tests: renamed, or mistyped."""
    tests = list(tests)
    single = (*LONG, *NOT_ON_JAX, *EAGER, *COMPILED)
    wrong = [p for p in single if not any(_any(t, [p]) for t in tests)]
    for table in (KEPT, KEPT_ON_TENSORFLOW, KEPT_ON_JAX):
        for pattern, kept in table.items():
            variants = [v for name, v in map(_split, tests) if _any(name, [pattern])]
            if not any(_any(variant, kept) for variant in variants):
                wrong.append(pattern)
    return wrong


def _split(test: str) -> tuple[str, str]:
    name, _, variant = test.removesuffix("]").partition("[")
    return name, variant


def _any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
