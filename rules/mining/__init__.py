"""Pure mining algorithms: micro-rules in, topics, clusters and drafts out.

Nothing here knows Django, a broker or a provider.

The usual order, each step deterministic for one seed:

    vectors = centre(embed_tfidf(texts, labels=task_labels))        # or centre() of an endpoint's vectors
    clustering = cluster_microrules(vectors, labels, ClusterParameters(seed=seed))
    figures = clustering_figures(clustering.topics, clustering.clusters, labels, yardstick)
    draft = draft_instruction(cluster_texts, cluster_vectors, labels=task_labels)

A *topic* is what micro-rules speak of; a *cluster* is one topic under one label, and becomes one instruction.
"""
