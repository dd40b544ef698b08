const __vite__mapDeps=(i,m=__vite__mapDeps,d=(m.f||(m.f=["assets/SpecEditor-DWAK1skM.js","assets/rolldown-runtime-WkwZ5CU-.js","assets/first-D0WVfPd9.js","assets/first-DbMc04ZH.css","assets/browser-DF48D-rS.js","assets/fields-B_uknaxO.js"])))=>i.map(i=>d[i]);
import{n as e}from"./rolldown-runtime-WkwZ5CU-.js";import{$ as t,At as n,Bt as r,C as i,D as a,Dt as o,Ft as s,H as c,Jn as l,K as u,Kt as d,O as f,P as p,T as m,V as h,X as g,Yt as ee,Z as _,Zt as te,_ as v,at as ne,c as re,en as y,g as ie,h as b,it as ae,jt as x,kt as oe,lt as S,m as C,mn as se,nt as w,ot as T,x as E,zt as D}from"./first-D0WVfPd9.js";import{r as ce}from"./useJob-BZEG_OPF.js";import{a as le,c as ue,i as de,l as O,o as k,r as fe,s as pe,t as me,u as A}from"./browser-DF48D-rS.js";import{t as j}from"./Grid-DoDtTlld.js";import{$ as M,C as N,E as he,S as ge,T as P,c as _e,et as ve,l as F,r as ye,w as be}from"./shared-B_qlTeYR.js";import{t as xe}from"./Skeleton-DF1eFVgb.js";import{t as Se}from"./scopes-CqOMuEVv.js";import{i as Ce,o as we,s as Te,t as Ee}from"./fields-B_uknaxO.js";import{t as De}from"./Progress-9-Xc85Y8.js";var I=e(l(),1);function Oe(e,t,n={leading:!1}){let[r,i]=(0,I.useState)(e),a=(0,I.useRef)(!1),o=(0,I.useRef)(null),s=(0,I.useRef)(!1),c=(0,I.useRef)(e);c.current=e;let l=(0,I.useCallback)(()=>{window.clearTimeout(o.current),o.current=null},[]),u=(0,I.useCallback)(()=>{l(),s.current=!1},[]),d=(0,I.useCallback)(()=>{o.current&&(u(),s.current=!1,i(c.current))},[]);return(0,I.useEffect)(()=>{a.current&&(l(),!s.current&&n.leading?(s.current=!0,i(e),o.current=window.setTimeout(()=>{s.current=!1},t)):o.current=window.setTimeout(()=>{s.current=!1,i(e)},t))},[e,n.leading,t]),(0,I.useEffect)(()=>(a.current=!0,u),[]),[r,u,{cancel:u,flush:d}]}var ke=_(`outline`,`folder`,`Folder`,[[`path`,{d:`M5 4h4l3 3h7a2 2 0 0 1 2 2v8a2 2 0 0 1 -2 2h-14a2 2 0 0 1 -2 -2v-11a2 2 0 0 1 2 -2`,key:`svg-0`}]]),Ae=_(`outline`,`restore`,`Restore`,[[`path`,{d:`M3.06 13a9 9 0 1 0 .49 -4.087`,key:`svg-0`}],[`path`,{d:`M3 4.001v5h5`,key:`svg-1`}],[`path`,{d:`M11 12a1 1 0 1 0 2 0a1 1 0 1 0 -2 0`,key:`svg-2`}]]),je=_(`outline`,`send`,`Send`,[[`path`,{d:`M10 14l11 -11`,key:`svg-0`}],[`path`,{d:`M21 3l-6.5 18a.55 .55 0 0 1 -1 0l-3.5 -7l-7 -3.5a.55 .55 0 0 1 0 -1l18 -6.5`,key:`svg-1`}]]),Me=[`shards`,`dataset`,`samples`,`captions`,`image_key`,`caption_key`,`languages`,`distinct_key`,`holdout`];function L(e,t){let n=me(e),r=n.getIn([`data`,`train`]);if(k(r)&&r.flow!==!0&&r.items.length>0)return Ne(e,r,`dataset: ${t}`);if(k(r))for(let e of Me)r.delete(e);return n.setIn([`data`,`train`,`dataset`],t),n.toString({lineWidth:130})}function Ne(e,t,n){let r=t.items.filter(e=>O(e.key)&&Me.includes(String(e.key.value))),i=` `.repeat(Ie(e,Fe(t.items[0]))),a=e;for(let t of r.toReversed()){let[n,r]=Pe(e,t);a=a.slice(0,n)+a.slice(r)}let o=Pe(e,r[0]??t.items[0])[0];return`${a.slice(0,o)}${i}${n}\n${a.slice(o)}`}function Pe(e,t){let n=e.lastIndexOf(`
`,Fe(t)-1)+1,r=t.value?.range?.[1]??t.key.range[1],i=n+e.slice(n,r).trimEnd().length,a=e.indexOf(`
`,i);return[n,a===-1?e.length:a+1]}function Fe(e){return e.key.range[0]}function Ie(e,t){return t-(e.lastIndexOf(`
`,t-1)+1)}function Le(e,t,n){let r=me(e),i=r.getIn(t,!0);return O(i)&&i.range!=null?e.slice(0,i.range[0])+n+e.slice(i.range[1]):(r.setIn(t,n),r.toString({lineWidth:130}))}var R=`/path/to/TinyCLIP/examples`,z=[{text:R,label:`Folder of the examples of a clone of TinyCLIP`,example:`/home/you/TinyCLIP/examples`},{text:`/path/to/photos`,label:`Folder of the photos`,example:`/data/photos`},{text:`s3://YOUR-BUCKET`,label:`Bucket or folder of the shards`,example:`s3://my-bucket`}];function B(e,t,n){return e.replaceAll(t,()=>n.trim().replace(/\/+$/,``))}var Re=100;function ze(e){let t=new fe(e);return de(t,{Collection(e,t,n){let r=n.length<=1,i=A(t)&&t.items.some(k);!r&&!i&&V(t)&&(t.flow=!0)}}),t.toString({lineWidth:130,flowCollectionPadding:!1})}function V(e){return le(e)?(k(e)?e.items.map(e=>e.value):e.items).every(e=>e===null||O(e)||V(e))&&JSON.stringify(e.toJSON()).length<=Re:O(e)}var H=`tinyclip.draft.`;function U(e){try{return sessionStorage.getItem(H+e)}catch{return null}}function W(e,t){try{t===null?sessionStorage.removeItem(H+e):sessionStorage.setItem(H+e,t)}catch{}}function Be(e,t,n){let r=Ve(t),i=r===null?e:B(e,R,r),a=n[0];return z.some(e=>i.includes(`shards: ${e.text}`))&&a!==void 0?L(i,`${a}@latest`):i}function Ve(e){for(let{name:t,spec:n}of e){let e=t.startsWith(`emoji/`)?n.match(/(?:\s|:|["'])(\/[^\n"']*)\/emoji\/data\//)?.[1]:void 0;if(e!==void 0)return e}return null}var G=[{name:`half`,label:`Half`,description:`Half of the teacher's weights, 1000 steps. The example with emoji: minutes on two CPU cores.`,text:`# Half of a CLIP, from the emoji of a clone of TinyCLIP: a student with half of the weights in its teacher's blocks.
#
# The stage cuts the student out of the teacher: the attention heads, MLP units and channels that the embeddings depend on most,
# fitted to the teacher (weight inheritance). Then it trains the student to have the teacher's embeddings.
name: emoji-half

teacher:
  model: local-dir:/path/to/TinyCLIP/examples/emoji/teachers/vit    # or hf-hub:ORG/NAME, registry:NAME@ALIAS, an architecture

data:
  train:
    shards: /path/to/TinyCLIP/examples/emoji/data/train-{000000..000003}.tar.gz
    caption_key: json.captions       # six captions an image; one is drawn each time
    distinct_key: json.label         # two drawings of one concept are never in one batch, as each other's negatives
    holdout: 0.1                     # a tenth of the images is kept for evaluation
    augment: {crop_scale: [0.9, 1.0], degrees: 12, translate: 0.08, scale: [0.85, 1.15], color_jitter: 0.3, gray: 0.1}
  shuffle: 10000                     # more than the number of images: every epoch has a new order

evaluation:
  tasks:
    # A style that training never sees.
    - name: style-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup
    - name: style-group
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      classes: /path/to/TinyCLIP/examples/emoji/data/groups.txt
      templates: ["an emoji from the {} category"]
      label_key: json.group
    - {name: style-retrieval, kind: retrieval, shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz}
    # The same style, only the concepts that are in no training image.
    - name: concept-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      where: {seen_concept: false}
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup
    # New images in the styles of training.
    - name: picture-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/train-{000000..000003}.tar.gz
      subset: holdout
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup

stages:
  - name: half
    inherit: auto                    # finds the sizes; with inherit: manual and student: {…} they are yours
    prune: {target_sparsity: 0.5}
    train: {steps: 1000}

objective: {feature_mimicry: 1}      # add affinity: 1 to mimic the similarities of images and texts as well
temperature: {teacher: null, student: learned}    # null: the teacher's own
optimizer: {lr: 5.0e-4, warmup_steps: 50}
batch_size: 64
precision: fp32
resources: {workers: 1, cpus_per_worker: 2}
checkpoint: {every_steps: 200, keep: 2}
seed: 0
`},{name:`quarter`,label:`Quarter`,description:`A quarter of the teacher's weights, selected by importance, 400 steps.`,text:`# A quarter of a CLIP whose shape follows from its teacher: 25% of the weights in the blocks of a ViT teacher.
#
# Before the first step, the channels, heads and MLP units that the embeddings depend on least are removed, counted per
# parameter, and what remains is fitted to the teacher. Sizes are those of attention and MLPs, the parts of a model's blocks;
# embeddings shrink with the channels.
name: emoji-quarter

teacher:
  model: local-dir:/path/to/TinyCLIP/examples/emoji/teachers/vit    # a transformer: a ResNet has no heads

data:
  train:
    shards: /path/to/TinyCLIP/examples/emoji/data/train-{000000..000003}.tar.gz
    caption_key: json.captions       # six captions an image; one is drawn each time
    distinct_key: json.label         # two drawings of one concept are never in one batch, as each other's negatives
    holdout: 0.1                     # a tenth of the images is kept for evaluation
    augment: {crop_scale: [0.9, 1.0], degrees: 12, translate: 0.08, scale: [0.85, 1.15], color_jitter: 0.3, gray: 0.1}
  shuffle: 10000                     # more than the number of images: every epoch has a new order

evaluation:
  tasks:
    # A style that training never sees.
    - name: style-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup
    - name: style-group
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      classes: /path/to/TinyCLIP/examples/emoji/data/groups.txt
      templates: ["an emoji from the {} category"]
      label_key: json.group
    - {name: style-retrieval, kind: retrieval, shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz}
    # The same style, only the concepts that are in no training image.
    - name: concept-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      where: {seen_concept: false}
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup
    # New images in the styles of training.
    - name: picture-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/train-{000000..000003}.tar.gz
      subset: holdout
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup

stages:
  - name: quarter
    inherit: auto                    # finds the sizes; with inherit: manual and student: {…} they are yours
    prune: {target_sparsity: 0.75}   
    train: {steps: 400}

objective: {feature_mimicry: 1}
temperature: {teacher: null, student: learned}    # null: the teacher's own
optimizer: {lr: 1.0e-3, warmup_steps: 20}
batch_size: 128
precision: fp32
resources: {workers: 1, cpus_per_worker: 2}
checkpoint: {every_steps: 50, keep: 2}
seed: 0
`},{name:`automatic`,label:`Automatic`,description:`Shape and learning rate are found while the student trains.`,text:`# A quarter of a CLIP whose shape and learning rate are found: masks are learned while the weights are frozen, until the prune step.
#
# Then everything that the masks close is removed, and what remains is trained. Sizes are those of attention and MLPs, the parts of a model's
# blocks; embeddings shrink with the channels. The learning rate is the largest one that keeps what was inherited.
name: emoji-automatic

teacher:
  model: local-dir:/path/to/TinyCLIP/examples/emoji/teachers/vit    # a transformer: a ResNet has no heads

data:
  train:
    shards: /path/to/TinyCLIP/examples/emoji/data/train-{000000..000003}.tar.gz
    caption_key: json.captions       # six captions an image; one is drawn each time
    distinct_key: json.label         # two drawings of one concept are never in one batch, as each other's negatives
    holdout: 0.1                     # a tenth of the images is kept for evaluation
    augment: {crop_scale: [0.9, 1.0], degrees: 12, translate: 0.08, scale: [0.85, 1.15], color_jitter: 0.3, gray: 0.1}
  shuffle: 10000                     # more than the number of images: every epoch has a new order

evaluation:
  tasks:
    # A style that training never sees.
    - name: style-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup
    - name: style-group
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      classes: /path/to/TinyCLIP/examples/emoji/data/groups.txt
      templates: ["an emoji from the {} category"]
      label_key: json.group
    - {name: style-retrieval, kind: retrieval, shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz}
    # The same style, only the concepts that are in no training image.
    - name: concept-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      where: {seen_concept: false}
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup
    # New images in the styles of training.
    - name: picture-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/train-{000000..000003}.tar.gz
      subset: holdout
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup

stages:
  - name: quarter
    inherit: auto
    prune: {target_sparsity: 0.75, search: frozen, prune_step: 320, sparsity_warmup: 100}    # search: importance needs no masks
    train: {steps: 600}

objective: {feature_mimicry: 1}
temperature: {teacher: null, student: learned}    # null: the teacher's own
optimizer: {lr: auto, warmup_steps: 20}      # tested before the first step of the stage
batch_size: 128
precision: fp32
resources: {workers: 1, cpus_per_worker: 2}
checkpoint: {every_steps: 50, keep: 2}
seed: 0
`},{name:`photos`,label:`Photos`,description:`Photos with captions in a WebDataset of yours, and sizes that you choose.`,text:`# Half of a model of photos: any WebDataset of KEY.jpg, KEY.txt and KEY.json, here of 100 classes.
#
# The teacher is a registered model: train one from scratch with examples/caltech101/teacher.yaml, or import one.
name: photos-half

teacher:
  model: registry:caltech101-teacher@latest      # also hf-hub:ORG/NAME, local-dir:PATH or an architecture

data:
  train:
    shards: /path/to/photos/train-*.tar
    image_key: [jpg]
    distinct_key: json.label         # captions of one class are alike: its images must not be each other's negatives
    augment: {crop_scale: [0.5, 1.0], horizontal_flip: 0.5, color_jitter: 0.3}
  shuffle: 5000

evaluation:
  tasks:
    - name: photos
      kind: zero_shot
      shards: /path/to/photos/val-*.tar
      image_key: [jpg]
      classes: /path/to/photos/classes.txt      # one class a line
      templates: ["a photo of a {}."]
      label_key: json.label

stages:
  - name: half
    inherit: manual
    student:
      image: {width: 24}
      text: {layers: 2, width: 128, heads: 2}
    train: {epochs: 12}

objective: {feature_mimicry: 1}
temperature: {teacher: null, student: learned}
optimizer: {lr: 1.0e-3, warmup_steps: 20}
batch_size: 64
precision: fp32
resources: {workers: 1, cpus_per_worker: 2}
checkpoint: {every_steps: 100, keep: 2}
seed: 0
`},{name:`published`,label:`Published`,description:`The two stages of the paper for ViT-B/32: 400 million pairs, 32 GPUs.`,text:`# Half of a ViT-B/32 by manual inheritance, in two stages: 100 -> 75 -> 50%, as in the published scripts.
# Published: 62.4% (61M) and 59.8% (40M) top-1 on ImageNet, zero-shot.
name: tinyclip-vit-40m-32

teacher: {model: ViT-B-32, pretrained: laion2b_e16}    # of both stages: always the original

data:
  train:
    shards: s3://YOUR-BUCKET/laion400m/{00000..41455}.tar
    samples: 400000000              # the number in the scripts; fewer can be downloaded today
    image_key: [jpg]

stages:
  - name: three-quarters
    select: leading
    student: {preset: TinyCLIP-ViT-61M-32-Text-29M}     # text blocks: the first 9 of 12
    train: {epochs: 6}
  - name: half
    select: leading
    student: {preset: TinyCLIP-ViT-40M-32-Text-19M}     # of the previous student, the first 6 of 9
    train: {epochs: 6}

objective: {affinity: 1}
temperature: {teacher: 50, student: 50}
optimizer: {lr: 1e-4, weight_decay: 0.2, betas: [0.9, 0.98], eps: 1e-6, warmup_steps: 2000, clip_norm: 5}
batch_size: 32768                   # 4 nodes of 8 GPUs, 1024 pairs each
precision: fp16                     # as published; bf16 needs no loss scaling
resources: {workers: 32, device: cuda, cpus_per_worker: 8}
checkpoint: {every_steps: 1000}
seed: 0
`}],K=200;function q(){return S({queryKey:[`names`,`datasets`],queryFn:async()=>(await b(C.GET(`/v1/datasets`,{params:{query:{page_size:K}}}))).items.filter(({latest:e})=>e!=null).map(({name:e})=>e)})}function He(){return S({queryKey:[`names`,`models`],queryFn:async()=>(await b(C.GET(`/v1/models`,{params:{query:{page_size:K}}}))).items.map(({name:e})=>e)})}function Ue(){let e=S({queryKey:[`schema`,`JobSpec`],queryFn:()=>b(C.GET(`/v1/schemas/{document}`,{params:{path:{document:`JobSpec`}}})),staleTime:1/0}),t=q().data,n=He().data;return(0,I.useMemo)(()=>({schema:e.data??null,values:We(t??[],n??[])}),[e.data,t,n])}function We(e,t){return n=>{let r=n.filter(e=>typeof e==`string`).join(`.`);if(r===`data.train.dataset`)return e.map(e=>({text:`${e}@latest`,description:`A registered data set`}));if(r===`teacher.model`||r===`teachers.model`){let e=[[`hf-hub:`,`A model of the Hugging Face Hub: hf-hub:ORG/NAME`],[`local-dir:`,`A folder or URI with a model of open_clip: local-dir:PATH`]];return[...t.map(e=>({text:`registry:${e}@latest`,description:`A registered model`})),...e.map(([e,t])=>({text:e,description:t}))]}return[]}}function Ge(){return S({queryKey:[`examples`],queryFn:async()=>(await b(C.GET(`/v1/examples`))).items,staleTime:6e4})}function Ke({template:e,from:t,dataset:n}){let r=qe(t),i=Je(e,n);return t===void 0?i:r}function qe(e){let t=S({...ce(e??``),enabled:e!==void 0}),n=`# The spec of job ${e}, to change and submit again.\n`,r=t.data===void 0?void 0:n+ze(t.data.submitted),i=`job:${e}`;return{id:i,original:r,draft:U(i),error:t.error}}function Je(e,t){let n=q(),r=Ge(),i=G.find(t=>t.name===e),a=r.data?.find(t=>t.name===e),o=i??G[0],s=`template:${a?.name??o.name}${t===void 0?``:` on ${t}`}`,c=r.isPending||n.isPending,l=c?void 0:a?.spec??Be(o.text,r.data??[],n.data??[]);return{id:s,original:l===void 0||t===void 0?l:L(l,t),draft:c?null:U(s),error:null}}var J=se(),Ye=4<<20;function Xe({onText:e,children:t}){let[n,r]=(0,I.useState)(!1);return(0,J.jsx)(y,{onDropCapture:t=>{r(!1);let n=t.dataTransfer.files[0];n!==void 0&&(t.preventDefault(),t.stopPropagation(),Ze(n,e))},onDragOverCapture:e=>{e.dataTransfer.types.includes(`Files`)&&(e.preventDefault(),r(!0))},onDragLeave:()=>r(!1),style:{outline:n?`2px dashed var(--mantine-primary-color-filled)`:`none`,borderRadius:`var(--mantine-radius-md)`},children:t})}async function Ze(e,t){if(e.size>Ye)return F(`Loading the file`,Error(`${e.name} is larger than 4 MB`));try{t(new TextDecoder(`utf-8`,{fatal:!0}).decode(await e.arrayBuffer()))}catch{F(`Loading the file`,Error(`${e.name} is not a text in UTF-8`))}}function Qe(e){return e===``||e===`/`?[]:e.replace(/^\//,``).split(`/`).map(e=>e.replace(/~1/g,`/`).replace(/~0/g,`~`))}function $e(e,t,n){let r=e.contents,i=nt(t,0,t.length);for(let e of n){let n=et(r,String(e));if(n===null)break;r=n.value,i=n.place(t)??i}return i}function et(e,t){if(k(e)){let n=e.items.find(e=>O(e.key)&&String(e.key.value)===t);return n===void 0?null:{value:n.value,place:e=>tt(n,e)}}if(A(e)){let n=e.items[Number(t)];return n===void 0?null:{value:n,place:e=>Y(n,e)}}return null}function tt(e,t){let n=Y(e.value,t),r=O(e.value)||pe(e.value)&&e.value.flow===!0;return n!==null&&r&&n.to>n.from?n:Y(e.key,t)}function Y(e,t){let n=pe(e)?e.range:ue(e)?e.key?.range:null;return n==null?null:nt(t,n[0],n[1])}function nt(e,t,n){let r=e.indexOf(`
`,t);return{from:t,to:r===-1||r>n?n:r}}function rt(e,t,n){let r=n.slice(0,-1).reduce((e,t)=>e===null?null:et(e,String(t))?.value??null,e.contents);if(!k(r))return null;let i=r.items.find(e=>O(e.key)&&String(e.key.value)===String(n.at(-1)));return i===void 0?null:Y(i.key,t)}function it(e,t){let n=[];return X(e,[e],t,[],n),n}function X(e,t,n,r,i){let a=t.flatMap(t=>Ce(e,t,n));if(Array.isArray(n))n.forEach((t,n)=>X(e,a.flatMap(e=>e.prefixItems?.[n]??e.items??[]),t,[...r,n],i));else if(typeof n==`object`&&n)for(let[t,o]of Object.entries(n)){let n=a.flatMap(e=>e.properties?.[t]??[]);n.length>0?X(e,n,o,[...r,t],i):a.some(we)&&!a.some(at)&&i.push(ot(e,a,[...r,t],t))}}function at(e){return(e.type===`object`||e.type===void 0)&&e.additionalProperties!==!1&&e.enum===void 0&&e.const===void 0}function ot(e,t,n,r){let i=Ee(e,t).map(e=>e.name),a=st(r,i);return{path:n,suggestion:a,message:`unknown field ${r}; ${a===null?`known here: ${i.sort().join(`, `)}`:`did you mean ${a}?`}`}}function st(e,t){let n=e=>e.toLowerCase().replace(/[-_\s]/g,``),r=null;for(let i of t){let t=ct(n(e),n(i));t<=Math.max(1,Math.floor(i.length/3))&&(r===null||t<r[0])&&(r=[t,i])}return r?.[1]??null}function ct(e,t){let n=Array.from({length:t.length+1},(e,t)=>t);for(let r=1;r<=e.length;r+=1){let i=[r];for(let a=1;a<=t.length;a+=1)i.push(Math.min(n[a]+1,i[a-1]+1,n[a-1]+Number(e[r-1]!==t[a-1])));n=i}return n[t.length]}function lt(e,{document:t,value:n,mistakes:r},i,a){if(n===void 0)return r.map(e=>({...e,where:``}));let o=i===null?[]:it(i,n),s=new Set(o.map(({path:e})=>e.join(`.`))),c=o.map(({path:n,message:r})=>({...rt(t,e,n)??$e(t,e,n),where:n.join(`.`),message:r,severity:`error`}));for(let{pointer:n,message:r}of a instanceof w?a.problem.errors??[]:[]){let i=Qe(n);s.has(i.join(`.`))||c.push({...$e(t,e,i),where:i.join(`.`),message:u(r),severity:`error`})}return c.sort((e,t)=>e.from-t.from)}function ut(e,t){return e.slice(0,t).split(`
`).length}var Z=50;function dt({mistakes:e,text:t,onJump:n}){return e.length===0?null:(0,J.jsxs)(M,{withBorder:!0,p:`sm`,mt:`sm`,component:`section`,"aria-labelledby":`mistakes-title`,children:[(0,J.jsx)(oe,{order:2,size:`h5`,id:`mistakes-title`,mb:4,children:e.length===1?`1 mistake`:`${e.length} mistakes`}),(0,J.jsx)(x,{gap:2,component:`ol`,m:0,p:0,style:{listStyle:`none`},children:e.slice(0,Z).map((e,r)=>(0,J.jsx)(`li`,{children:(0,J.jsx)(te,{onClick:()=>n(e),w:`100%`,py:2,children:(0,J.jsxs)(D,{size:`sm`,className:`user-text`,children:[(0,J.jsxs)(D,{span:!0,fw:600,c:`light-dark(var(--mantine-color-red-9), var(--mantine-color-red-4))`,children:[`Line `,ut(t,e.from)]}),` `,e.where!==``&&(0,J.jsxs)(D,{span:!0,ff:`monospace`,children:[u(e.where,120),`:`,` `]}),u(e.message)]})})},r))}),e.length>Z&&(0,J.jsxs)(D,{size:`sm`,children:[`and `,e.length-Z,` more`]})]})}function ft({places:e,text:t,onReplace:n}){return e.length===0?null:(0,J.jsx)(r,{color:`blue`,variant:`light`,icon:(0,J.jsx)(ke,{}),title:`This template needs addresses of yours`,children:(0,J.jsxs)(x,{gap:`xs`,children:[e.map(e=>(0,J.jsx)(pt,{place:e,onFill:r=>n(B(t,e.text,r))},e.text)),(0,J.jsx)(D,{size:`sm`,c:`var(--mantine-color-text)`,children:`The server and its workers read them, not the browser. A registered data set needs no address.`})]})})}function pt({place:e,onFill:t}){let[r,i]=(0,I.useState)(``);return(0,J.jsx)(`form`,{onSubmit:e=>{e.preventDefault(),r.trim()!==``&&t(r)},children:(0,J.jsxs)(d,{gap:`xs`,align:`flex-end`,children:[(0,J.jsx)(n,{label:e.label,placeholder:e.example,value:r,onChange:e=>i(e.currentTarget.value),w:`min(360px, 64vw)`}),(0,J.jsx)(s,{type:`submit`,variant:`default`,disabled:r.trim()===``,children:`Fill in`})]})})}function mt({image_params:e,text_params_without_embedding:t}){return e+t}function ht(e,t,n){return t==null||n(t)===0?null:n(e)/n(t)}function gt({plan:e}){let{teacher:t,stages:n}=e,r=[{label:`Image parameters`,of:({image_params:e})=>E(e)},{label:`Text parameters`,of:({text_params_without_embedding:e})=>E(e)},{label:`MACs of a pair`,of:({macs:e})=>E(e)}];return(0,J.jsxs)(ye,{columns:[`Model`,t!==null&&`Teacher`,...n.map(({name:e})=>({head:u(e,40),className:`user-text`}))],withRowBorders:!1,verticalSpacing:4,horizontalSpacing:`xs`,fz:`sm`,style:{whiteSpace:`nowrap`},children:[r.map(({label:e,of:r})=>(0,J.jsx)(Q,{label:e,teacher:t===null?null:r(t),stages:n,of:e=>`${e.student.estimated?`~`:``}${r(e.student)}`},e)),t!==null&&(0,J.jsx)(Q,{label:`Share of parameters`,teacher:`100 %`,stages:n,of:e=>(0,J.jsx)(_t,{value:ht(e.student,t,mt)})}),t!==null&&(0,J.jsx)(Q,{label:`Share of MACs`,teacher:`100 %`,stages:n,of:e=>(0,J.jsx)(_t,{value:ht(e.student,t,({macs:e})=>e)})}),(0,J.jsx)(Q,{label:`Inherits`,teacher:t===null?null:``,stages:n,of:vt}),(0,J.jsx)(Q,{label:`Steps`,teacher:t===null?null:``,stages:n,of:e=>m(e.steps)}),(0,J.jsx)(Q,{label:`Learning rate`,teacher:t===null?null:``,stages:n,of:e=>typeof e.lr==`number`?f(e.lr):e.lr===`auto`?`is tested`:`–`}),(0,J.jsx)(Q,{label:`Device time`,teacher:t===null?null:``,stages:n,of:e=>i(Math.max(1,e.device_hours*3600))})]})}function Q({label:e,teacher:t,stages:n,of:r}){return(0,J.jsxs)(N.Tr,{children:[(0,J.jsx)(N.Th,{scope:`row`,fw:400,children:e}),t!==null&&(0,J.jsx)(N.Td,{children:t}),n.map(e=>(0,J.jsx)(N.Td,{children:r(e)},e.index))]})}function _t({value:e}){return e===null?`–`:(0,J.jsxs)(J.Fragment,{children:[(0,J.jsx)(D,{span:!0,size:`sm`,children:a(e,0)}),(0,J.jsx)(De,{value:100*Math.min(1,e),size:4,mt:2,w:72,"aria-hidden":!0})]})}function vt({inherit:e,select:t,search:n}){if(e===`none`)return`nothing`;let r=e===`auto`?n:t;return r==null?e:`${e}, ${r}`}function yt({planned:e,hasMistakes:t,mayWrite:n}){let{plan:r,isOutdated:i,isPlanning:a,isBusy:o}=e;return(0,J.jsxs)(x,{gap:`sm`,component:`section`,"aria-labelledby":`plan-title`,children:[(0,J.jsxs)(d,{justify:`space-between`,mih:28,children:[(0,J.jsx)(oe,{order:2,size:`h4`,id:`plan-title`,children:`Plan`}),(0,J.jsxs)(D,{size:`sm`,c:`dimmed`,role:`status`,children:[a&&(0,J.jsx)(ee,{size:12,mr:6}),bt(e,t)]})]}),e.error!==null&&!t&&(0,J.jsx)(h,{error:e.error}),r===null?(0,J.jsxs)(D,{c:`dimmed`,size:`sm`,children:[!n&&`Your token has no scope write, which plans and submits jobs: ask an administrator of the project for one.`,n&&(o||a?`The server reads the teacher and the shards.`:`A valid spec shows its students, steps and hours here.`)]}):(0,J.jsx)(y,{style:i?{filter:`grayscale(1) opacity(0.6)`}:void 0,children:(0,J.jsx)(xt,{plan:r})})]})}function bt({isPlanning:e,isBusy:t,isOutdated:n,plan:r},i){return t?`The server is busy; asking again soon`:e?`Planning`:i?r===null?`Mistakes in the spec`:`Of the last valid text`:n?``:`Up to date`}function xt({plan:e}){return(0,J.jsxs)(x,{gap:`sm`,children:[(0,J.jsx)(Ct,{warnings:e.warnings??[]}),(0,J.jsxs)(be,{cols:{base:2,xs:4,md:2,xl:4},spacing:`xs`,children:[(0,J.jsx)($,{label:`Steps`,value:m(e.steps)}),(0,J.jsx)($,{label:e.device===`cuda`?`GPU-hours`:`CPU time`,value:St(e)}),(0,J.jsx)($,{label:`Pairs in an epoch`,value:E(e.samples_per_epoch)}),(0,J.jsx)($,{label:`Batch size`,value:m(e.spec.batch_size)})]}),(e.saved_device_hours??0)>0&&(0,J.jsxs)(D,{size:`sm`,children:[`The reinforcement saves `,f(e.saved_device_hours),` device-hours of the teacher.`]}),(0,J.jsx)(ve,{type:`auto`,viewportProps:{tabIndex:0,role:`region`,"aria-label":`Students`},children:(0,J.jsx)(gt,{plan:e})}),(0,J.jsxs)(D,{size:`xs`,c:`dimmed`,children:[`Parameters are without the token embedding.`,e.stages.some(e=>e.student.estimated)&&` ~ is an estimate: the shape is found when the job runs.`]})]})}function St({device_hours:e,device:t}){return t===`cuda`?`${f(e)} h`:`about ${i(Math.max(1,e*3600))}`}function $({label:e,value:t}){return(0,J.jsxs)(`div`,{children:[(0,J.jsx)(D,{size:`xs`,c:`dimmed`,children:e}),(0,J.jsx)(D,{fw:600,children:t})]})}function Ct({warnings:e}){return e.length===0?null:(0,J.jsx)(r,{color:`orange`,variant:`light`,icon:(0,J.jsx)(g,{}),title:e.length===1?`A warning`:`${e.length} warnings`,children:(0,J.jsx)(x,{gap:4,component:`ul`,m:0,pl:`md`,children:e.map(e=>(0,J.jsx)(D,{component:`li`,size:`sm`,className:`user-text`,c:`var(--mantine-color-text)`,children:u(e)},e))})})}var wt=500,Tt=20,Et=3e4;function Dt(e){let[t]=Oe(e,wt),n=S({queryKey:[`plan`,t],queryFn:({signal:e})=>Ot(t,e),enabled:t!==null&&t===e,retry:(e,t)=>(ae(t)||kt(t))&&e<Tt,retryDelay:(e,t)=>t instanceof w&&t.retryAfterSeconds!==null?1e3*t.retryAfterSeconds:Math.min(1e3*2**e,8e3),staleTime:Et,gcTime:Et,refetchOnWindowFocus:!1}),r=(0,I.useRef)(null);n.data!==void 0&&(r.current=n.data);let i=e!==null&&t===e,a=(0,I.useRef)(null);return i&&!n.isFetching&&(a.current=n.error),{plan:r.current,isOutdated:!i||n.data===void 0,isPlanning:e!==null&&(!i||n.isFetching),error:a.current,isBusy:At(n.isFetching&&kt(n.failureReason))}}async function Ot(e,t){return await(await v(`/v1/jobs?validate_only=true`,{method:`POST`,body:e,headers:{"Content-Type":`application/json`},signal:t})).json()}function kt(e){return e instanceof w&&e.problem.status===429}function At(e){let[t,n]=(0,I.useState)(!1);return(0,I.useEffect)(()=>{if(!e)return n(!1);let t=setTimeout(()=>n(!0),300);return()=>clearTimeout(t)},[e]),t}var jt=ne(`/new-job`);function Mt({text:e,isChanged:t,onReplace:n,onReset:r,onSubmit:i,canSubmit:a,mayWrite:o,isSubmitting:c}){return(0,J.jsxs)(d,{gap:`sm`,align:`flex-end`,justify:`space-between`,children:[(0,J.jsxs)(d,{gap:`sm`,align:`flex-end`,children:[(0,J.jsx)(Nt,{}),(0,J.jsx)(Pt,{text:e,onReplace:n}),(0,J.jsx)(Ft,{text:e,onReplace:n}),(0,J.jsx)(s,{variant:`default`,leftSection:(0,J.jsx)(Ae,{size:16,"aria-hidden":!0}),onClick:r,disabled:!t,children:`Start over`})]}),(0,J.jsx)(he,{label:o?`Ctrl+Enter`:`Your token has no scope write`,children:(0,J.jsx)(s,{leftSection:(0,J.jsx)(je,{size:16,"aria-hidden":!0}),onClick:i,disabled:!a||!o,loading:c,children:`Submit job`})})]})}function Nt(){let{template:e,from:t,dataset:n}=jt.useSearch(),r=T(),i=Ge().data??[],a=t===void 0?e??G[0].name:null,o=G.find(({name:e})=>e===a)?.description??i.find(({name:e})=>e===a)?.title,s=[{group:`Templates`,items:G.map(({name:e,label:t})=>({value:e,label:t}))},{group:`Examples on the server`,items:i.map(({name:e})=>({value:e,label:e.replace(/\.yaml$/,``)}))}];return(0,J.jsx)(P,{label:`Template`,description:o,placeholder:`A job's spec`,w:330,maw:`100%`,data:s.filter(({items:e})=>e.length>0),value:a,allowDeselect:!1,onChange:e=>e!==null&&void r({to:`/new-job`,search:{template:e,...n===void 0?{}:{dataset:n}}})})}function Pt({text:e,onReplace:t}){let n=q().data??[];if(n.length===0)return null;let r=It(e,[`data`,`train`,`dataset`])?.split(`@`)[0]??null;return(0,J.jsx)(P,{label:`Data set`,placeholder:`Shards`,w:190,searchable:!0,data:n,value:r!==null&&n.includes(r)?r:null,onChange:n=>n!==null&&t(L(e,`${n}@latest`))})}function Ft({text:e,onReplace:t}){let n=He().data??[];if(n.length===0)return null;let r=It(e,[`teacher`,`model`])??``,i=r.startsWith(`registry:`)?r.slice(9).split(`@`)[0]:null;return(0,J.jsx)(P,{label:`Teacher`,placeholder:`As in the spec`,w:190,searchable:!0,data:n,value:i!==null&&n.includes(i)?i:null,onChange:n=>n!==null&&t(Le(e,[`teacher`,`model`],`registry:${n}@latest`))})}function It(e,t){let n=Te(e).document.getIn(t);return typeof n==`string`?n:null}function Lt(e){let t=T(),n=o(),r=(0,I.useRef)({spec:``,key:``});return ge({mutationFn:async e=>{r.current.spec!==e&&(r.current={spec:e,key:ie()});let t={"Content-Type":`application/json`,"Idempotency-Key":r.current.key};return await(await v(`/v1/jobs`,{method:`POST`,body:e,headers:t})).json()},onSuccess:i=>{W(e,null),r.current={spec:``,key:``},_e(`Job ${i.name} is submitted`),n.invalidateQueries({queryKey:[`jobs`]}),t({to:`/jobs/$jobId`,params:{jobId:i.id}})},onError:e=>F(`Submission`,e)})}var Rt=(0,I.lazy)(()=>t(()=>import(`./SpecEditor-DWAK1skM.js`),__vite__mapDeps([0,1,2,3,4,5]))),zt=`editor-keys`;function Bt({source:e,original:t,initial:n}){let[r,i]=(0,I.useState)(n),a=(0,I.useRef)(null),o=Ue(),s=(0,I.useMemo)(()=>Te(r),[r]),c=(0,I.useMemo)(()=>s.value===void 0?null:JSON.stringify(s.value),[s]),l=re().data,u=l===void 0||Se(l,`write`),d=Dt(u?c:null),f=(0,I.useMemo)(()=>lt(r,s,o.schema,d.error),[r,s,o.schema,d.error]),p=Lt(e),m=n=>{i(n),W(e,n===t?null:n)},h=e=>a.current===null?m(e):a.current.replace(e),g=()=>{c!==null&&u&&!p.isPending&&p.mutate(c)};return(0,J.jsxs)(x,{gap:`sm`,children:[(0,J.jsx)(Mt,{text:r,isChanged:r!==t,onReplace:h,onReset:()=>h(t),onSubmit:g,canSubmit:c!==null,mayWrite:u,isSubmitting:p.isPending}),(0,J.jsx)(ft,{places:z.filter(e=>r.includes(e.text)),text:r,onReplace:h}),(0,J.jsxs)(j,{gap:`md`,children:[(0,J.jsxs)(j.Col,{span:{base:12,md:7},children:[(0,J.jsx)(Xe,{onText:h,children:(0,J.jsx)(M,{withBorder:!0,h:`clamp(320px, calc(100vh - 330px), 900px)`,style:{overflow:`hidden`},children:(0,J.jsx)(I.Suspense,{fallback:(0,J.jsx)(xe,{h:`100%`}),children:(0,J.jsx)(Rt,{ref:a,initialText:r,onChange:m,onSubmit:g,mistakes:f,knowledge:o,describedBy:zt})})})}),(0,J.jsx)(D,{id:zt,size:`xs`,c:`dimmed`,mt:4,children:`Ctrl+Space completes, Ctrl+Enter submits, Ctrl+Z takes back (on a Mac, Cmd for the last two). Tab indents: to leave the editor press Escape, then Tab. Drop a YAML or JSON file to load it.`}),(0,J.jsx)(dt,{mistakes:f,text:r,onJump:e=>a.current?.jump(e)})]}),(0,J.jsx)(j.Col,{span:{base:12,md:5},children:(0,J.jsx)(y,{pos:`sticky`,top:64,children:(0,J.jsx)(yt,{planned:d,mayWrite:u,hasMistakes:f.length>0})})})]})]})}var Vt=ne(`/new-job`);function Ht(){let e=Vt.useSearch(),{id:t,original:n,draft:r,error:i}=Ke(e);return(0,J.jsx)(p,{title:`New job`,subtitle:e.from===void 0?`Describe a student: its teacher, its data and its stages.`:`A job's spec, to change and submit again.`,children:n===void 0?i===null?(0,J.jsx)(c,{}):(0,J.jsx)(h,{error:i}):(0,J.jsx)(Bt,{source:t,original:n,initial:r??n},t)})}export{Ht as default};